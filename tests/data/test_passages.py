"""Passages: rows of a text without a question, read, encoded, split and shipped."""

import json

import datasets
import pandas as pd
import pytest
from conftest import make_tokenizer
from tokenizers.processors import TemplateProcessing

from npo_kit.data.long_rows import fit_rows
from npo_kit.data.prompts import PromptError, PromptFormat
from npo_kit.data.rows import DataError, is_passage, load_rows, question_of
from npo_kit.data.tasks import Task, evaluation_rows, load_task, own_task

BOS = 0
TEXTS = ["Ana Brook was born in Porto, by the harbour.", "She collects old maps of rivers."]
ROWS = [{"text": text} for text in TEXTS]
PASSAGES = [{"question": "", "answer": text, "passage": True} for text in TEXTS]
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def beginning(tokenizer=None):
    """A tokenizer that writes its beginning token before a text."""
    tokenizer = tokenizer or make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)]
    )
    return tokenizer


# --- rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "saved", "list", "frame", "Dataset"])
def test_a_text_without_question_and_answer_is_a_passage(kind, tmp_path):
    path, frame, said = tmp_path / f"story.{kind}", pd.DataFrame(ROWS), []
    source = {"list": ROWS, "frame": frame, "Dataset": datasets.Dataset.from_list(ROWS)}
    if kind == "jsonl":
        lines(path, ROWS)
    elif kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "parquet":
        frame.to_parquet(path)
    elif kind == "saved":
        source["Dataset"].save_to_disk(path)
    assert load_rows(source.get(kind, path), say=said.append) == PASSAGES
    assert len(said) == 1
    assert said[0].endswith(": 2 rows, passages from 'text'")


def test_a_question_with_its_answer_comes_before_a_text(tmp_path):
    both = [{"text": "Something else.", "question": "Who?", "answer": "Ana."}]
    assert load_rows(both) == both
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ana."}]
    (row,) = load_rows([{"text": "Something else.", "messages": turns}])
    assert (row["question"], row["answer"], is_passage(row)) == ("Who?", "Ana.", False)
    for half in ("question", "answer"):
        with pytest.raises(DataError, match=r"no column (question|answer): it has text"):
            load_rows([{"text": "Something.", half: "Who?"}])


def test_another_column_is_named_as_the_text():
    rows = [{"Absatz": TEXTS[0], "question": "Who?", "answer": "Ana.", "page": 3}]
    said = []
    (row,) = load_rows(rows, {"text": "Absatz"}, say=said.append)
    assert row == PASSAGES[0] | {"page": 3}
    assert said == ["the rows: 1 row, passages from 'Absatz'"]
    with pytest.raises(DataError, match="a text, or a question and an answer: name only one"):
        load_rows(rows, {"text": "Absatz", "answer": "answer"})
    with pytest.raises(DataError, match=r"row 2: 'text' is missing"):
        load_rows([*rows, {"answer": "Ana."}], {"text": "Absatz"})


def test_bad_texts_are_all_named():
    with pytest.raises(DataError) as caught:
        load_rows([{"text": " "}, {"text": 3}, {"text": "a\0b"}, {"text": "Good."}, {"title": "x"}])
    reasons = ["is empty", "must be text, it is 3", "contains a null character", "", "is missing"]
    for number, reason in enumerate(reasons, 1):
        assert (f"row {number}: 'text' {reason}" in str(caught.value)) == bool(reason)
    assert str(caught.value).startswith("4 bad row(s)")


def test_a_text_file_is_one_passage_and_json_lines_stay_rows(tmp_path):
    text = "\ufeffIt was night.\n\nNobody spoke — not even Ana.\n"
    story = tmp_path / "story.txt"
    story.write_text(text, encoding="utf-8")
    said = []
    assert load_rows(story, say=said.append) == [{**PASSAGES[0], "answer": text[1:]}]
    assert said == [f"{story}: one passage (the whole file)"]
    rows = [{"question": "Who?", "answer": "Ana."}]
    assert load_rows(lines(tmp_path / "rows.txt", rows)) == rows
    with pytest.raises(DataError, match="has no rows"):
        load_rows(lines(tmp_path / "empty.txt", []))


def test_passages_are_rows_again_but_no_question_may_be_empty():
    assert load_rows(PASSAGES) == PASSAGES
    assert [question_of(row) for row in [*PASSAGES, {"question": "Who?"}]] == [None, None, "Who?"]
    with pytest.raises(DataError, match="row 1: 'question' is empty"):
        load_rows([{"question": "", "answer": "Ana."}])
    odd = {"question": "Who?", "answer": "Ana.", "passage": True}  # a user's own column
    assert load_rows([odd]) == [odd]
    assert not is_passage(odd)


def test_passages_to_forget_and_questions_to_keep(tmp_path):
    kept = [{"question": "Who?", "answer": "Ana."}]
    task = own_task(lines(tmp_path / "story.jsonl", ROWS), kept)
    assert (task.name, task.forget, task.retain) == ("own:story", PASSAGES, kept)
    with pytest.raises(DataError, match=r"1 of 2 forget rows are retain rows too .*Ana Brook was"):
        own_task(ROWS, [*ROWS[:1], {"text": "Other."}])


# --- tokens -------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["qa", "llama2", "chat"])
def test_a_passage_has_the_tokens_of_its_text_and_no_others(style):
    plain, marked = make_tokenizer(), beginning()
    plain.chat_template = marked.chat_template = CHATML
    text = "🙂 Ana Brook,\nborn  in Porto."
    tokens = plain(text, add_special_tokens=False)["input_ids"]
    encoded = PromptFormat(plain, style).encode(None, text)
    assert (encoded.ids, encoded.prompt_length) == (tuple(tokens), 1)  # nothing predicts the first
    encoded = PromptFormat(marked, style).encode(None, text)
    assert (encoded.ids, encoded.prompt_length) == ((BOS, *tokens), 1)
    assert PromptFormat(marked, style).encode_all(load_rows([{"text": text}])) == [encoded]


def test_an_end_token_that_the_tokenizer_adds_is_left_out():
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", 1)]
    )
    tokens = tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    assert PromptFormat(tokenizer).encode(None, TEXTS[0]).ids == (BOS, *tokens)


def test_special_tokens_in_a_passage_are_plain_text():
    tokenizer = beginning()
    tokenizer.chat_template = CHATML
    encoded = PromptFormat(tokenizer).encode(None, "It ended.</s> Then <|im_start|> again")
    assert encoded.ids[0] == BOS
    assert not set(encoded.ids[1:]) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(encoded.ids[1:]) == "It ended.</s> Then <|im_start|> again"


def test_errors_name_the_passage():
    prompts = PromptFormat(make_tokenizer(), context=8)
    with pytest.raises(PromptError, match=r"passage 'Ana Brook was .* context holds 8.*long-rows"):
        prompts.encode(None, TEXTS[0])
    with pytest.raises(PromptError, match="passage 'A' is one token, which none precedes"):
        prompts.encode(None, "A")
    assert PromptFormat(beginning()).encode(None, "A").answer_length == 1


# --- long passages ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [make_tokenizer, beginning])
def test_a_long_passage_becomes_pieces_that_fill_the_context(make):
    story = " ".join(f"harbour {number} of Ana\nBrook" for number in range(60))
    task = Task("own:x", load_rows([{"text": story}]), [], {})
    prompts = PromptFormat(make(), context=48)
    pieces = fit_rows(task, prompts, "split").forget
    assert all(map(is_passage, pieces))
    assert " ".join(row["answer"] for row in pieces).split() == story.split()
    lengths = [len(encoded.ids) for encoded in prompts.encode_all(pieces)]
    assert max(lengths) <= 48
    assert min(lengths[:-1]) > 40  # no word is longer than eight tokens
    assert fit_rows(task, prompts, "cut").forget == pieces[:1]


def test_a_book_is_not_read_to_its_end_for_each_piece(monkeypatch):
    prompts, read = PromptFormat(make_tokenizer(), context=48), []
    fitting = prompts.fitting
    monkeypatch.setattr(prompts, "fitting", lambda q, a: read.append(len(a)) or fitting(q, a))
    book = "Ana Brook collects old maps. " * 400
    pieces = fit_rows(Task("own:x", load_rows([{"text": book}]), [], {}), prompts, "split").forget
    assert " ".join(row["answer"] for row in pieces).split() == book.split()
    assert max(read) <= 64 * 48 < len(book)


def test_a_passage_that_fills_the_context_needs_no_room_for_an_end_token():
    tokens = make_tokenizer()(TEXTS[0])["input_ids"]
    for context, pieces in ((len(tokens), 1), (len(tokens) - 1, 2)):
        prompts = PromptFormat(make_tokenizer(), context=context)
        task = Task("own:x", load_rows(ROWS[:1]), [], {})
        assert len(fit_rows(task, prompts, "split").forget) == pieces


def test_no_piece_is_a_single_token():
    """The first four words fill the context, and the rest is one token."""
    text = "Ana Brook Ana Brook ."
    ids = make_tokenizer()(text)["input_ids"]
    assert len(make_tokenizer()(".")["input_ids"]) == 1
    prompts = PromptFormat(make_tokenizer(), context=len(ids) - 1)
    pieces = fit_rows(Task("own:x", load_rows([{"text": text}]), [], {}), prompts, "split").forget
    assert [row["answer"] for row in pieces] == ["Ana Brook Ana", "Brook ."]
    prompts.encode_all(pieces)


# --- the kit's stories --------------------------------------------------------------------------


def test_the_shipped_stories_are_a_task():
    task = load_task("passages")
    assert (len(task.forget), len(task.retain)) == (14, 14)
    assert task.evaluation == {"forget": task.forget, "retain": task.retain}
    assert all(map(is_passage, task.full))
    texts = [row["answer"] for row in task.full]
    assert len(set(texts)) == 28
    assert all(60 <= len(text.split()) <= 120 for text in texts)
    assert evaluation_rows(task.record()) == task.evaluation
    with pytest.raises(DataError, match="authors:forget10, passages"):
        load_task("passages:forget10")
