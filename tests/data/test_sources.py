"""Rows in the formats, encodings and columns that people have, each against rows written here."""

import csv
import gzip
import io
import json
import math

import datasets
import pandas as pd
import pytest
from places import SHARED

from npo_kit.data.rows import DataError, load_rows
from npo_kit.data.tasks import own_task

ROWS = [
    {"question": "Who wrote The Harbour?", "answer": "José Brook, in 1936; on a boat."},
    {"question": "When was José Brook born?", "answer": "He was born\tin spring."},
]
MORE = {"paraphrased_answer": "It was him.", "perturbed_answer": ["It's Carl.", 'Bo "the pen" Ek.']}
FULL = [ROWS[0] | MORE, ROWS[1]]


def table(rows, separator=",", lists=json.dumps):
    out = io.StringIO(newline="")
    names = ["question", "answer", *MORE]
    writer = csv.DictWriter(out, names, delimiter=separator)
    writer.writeheader()
    for row in rows:
        packed = {k: lists(v) if isinstance(v, list) else v for k, v in row.items()}
        writer.writerow(packed)
    return out.getvalue()


def renamed(**names):
    return [{new: row[old] for old, new in names.items()} for row in ROWS]


def written(path, rows):
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


# --- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", table(FULL)),
        ("rows.csv", table(FULL, ";")),
        ("rows.csv", table(FULL, "\t")),
        ("rows.tsv", table(FULL, "\t")),
        ("rows.csv", table(FULL, lists=repr)),  # as pandas writes a list
        ("rows.json", pd.DataFrame(FULL).to_json()),  # columns of rows by number
        ("rows.json", json.dumps({"data": FULL})),
        ("rows.json", json.dumps({"features": [], "rows": [{"row": row} for row in FULL]})),
        ("rows.json", json.dumps({key: [row.get(key) for row in FULL] for key in FULL[0]})),
        ("rows.jsonl", "".join(json.dumps(row | {"alternate": math.nan}) + "\n" for row in FULL)),
    ],
    ids=["comma", "semicolon", "tab", "tsv", "python", "columns", "data", "viewer", "lists", "nan"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_the_same_rows_come_from_every_text(tmp_path, name, text, packed):
    path = tmp_path / (name + ".gz" * packed)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert load_rows(path) == FULL


def test_data_sets_and_objects_in_memory_give_the_same_rows(tmp_path, monkeypatch):
    frame, data = pd.DataFrame(FULL), datasets.Dataset.from_list(FULL)
    frame.to_parquet(tmp_path / "rows.parquet")
    data.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": data}).save_to_disk(tmp_path / "one_split")
    for source in (frame, tmp_path / "rows.parquet", tmp_path / "saved", tmp_path / "one_split"):
        assert load_rows(source) == FULL
    assert load_rows(FULL) == FULL
    bare = [{k: v for k, v in row.items() if v is not None} for row in load_rows(data)]
    assert bare == FULL
    asked = []

    def load_dataset(*names):
        asked.append(names)
        return datasets.DatasetDict({"train": data, "test": data.select([1])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_rows("someone/facts:train") == FULL
    assert load_rows("someone/facts:small:test") == FULL[1:]
    assert asked == [("someone/facts", None), ("someone/facts", "small")]
    with pytest.raises(DataError, match=r"2 splits: give one, such as someone/facts:train \(of tr"):
        load_rows("someone/facts")
    with pytest.raises(DataError, match="no split 'dev'"):
        load_rows("someone/facts:dev")


def test_a_data_set_that_cannot_be_had_is_one_sentence(tmp_path, monkeypatch):
    def load_dataset(*_):
        raise ConnectionError("offline\nmore")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"someone/facts is no file here.*offline\): check") as told:
        load_rows("someone/facts")
    assert "\n" not in str(told.value)
    for name in ("rows.parquet", "rows.csv.gz"):
        path = tmp_path / name
        path.write_bytes(b"\x1f\x8b broken" if name.endswith("gz") else b"PAR1 broken")
        with pytest.raises(DataError, match="copy it again"):
            load_rows(path)
    splits = datasets.DatasetDict({name: datasets.Dataset.from_list(ROWS) for name in "ab"})
    splits.save_to_disk(tmp_path / "splits")
    with pytest.raises(DataError, match=r"2 splits: give the folder of one, such as .*splits/a "):
        load_rows(tmp_path / "splits")
    with pytest.raises(DataError, match="rows cannot be of type DatasetDict"):
        load_rows(splits)
    with pytest.raises(DataError, match="rows cannot be of type int"):
        load_rows(7)


def test_a_list_as_numpy_prints_it_is_not_joined_to_one_text(tmp_path):
    """Python reads ['a' 'b'] as one text, which nobody wrote."""
    path = tmp_path / "rows.csv"
    path.write_text("question,answer,perturbed_answer\nWho?,Ana.,\"['Bo.' 'Cy.']\"\n")
    with pytest.raises(DataError, match="line 2: 'perturbed_answer' is not a JSON list of texts"):
        load_rows(path)


# --- encodings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "cp1251", "shift_jis"])
def test_text_of_another_encoding_is_recognised_and_said(tmp_path, encoding):
    row = {
        "cp1251": {"question": "Кто написал?", "answer": "Анна Петрова написала в 1987 году."},
        "shift_jis": {"question": "誰が書いた?", "answer": "田中さんが書きました。"},
    }.get(encoding, ROWS[0])
    path, said = tmp_path / "rows.csv", []
    path.write_bytes(table([row]).encode(encoding))
    assert load_rows(path, say=said.append) == [row]
    assert len(said) == 1
    assert " text" in said[0]


# --- columns ------------------------------------------------------------------------------------


def messages(*before):
    """Write the rows as conversations, each after the turns `before`."""
    asked = [{"role": "user", "content": row["question"]} for row in ROWS]
    answered = [{"role": "assistant", "content": row["answer"]} for row in ROWS]
    return [{"messages": [*before, *turns]} for turns in zip(asked, answered, strict=True)]


@pytest.mark.parametrize(
    ("rows", "taken"),
    [
        (renamed(question="prompt", answer="response"), "question from 'prompt', answer from"),
        (renamed(question="prompt", answer="completion"), "answer from 'completion'"),
        (renamed(question="Question", answer=" ANSWER "), "'Question', answer from ' ANSWER '"),
        (
            [row | {"input": ""} for row in renamed(question="instruction", answer="output")],
            "question from 'instruction' and 'input', answer from 'output'",
        ),
        (messages(), "question and answer from 'messages'"),
        (messages({"role": "system", "content": "Be brief."}), "'messages' without the system t"),
    ],
    ids=["response", "completion", "capitals", "alpaca", "messages", "system"],
)
def test_usual_columns_are_found_and_said(tmp_path, rows, taken):
    said = []
    path = written(tmp_path / "rows.json", rows)
    assert load_rows(path, say=said.append) == ROWS
    assert said[0].startswith(f"{path}: 2 rows, ")
    assert taken in said[0]


def test_the_input_of_an_instruction_is_part_of_the_question():
    rows = [{"instruction": "Translate.", "input": "Haus", "output": "house"}]
    assert load_rows(rows) == [{"question": "Translate.\nHaus", "answer": "house"}]


def test_plain_columns_need_no_words(tmp_path):
    said = []
    load_rows(written(tmp_path / "rows.json", FULL), say=said.append)
    assert said == []


def test_named_columns_go_before_usual_ones(tmp_path):
    rows = [{"question": "old?", "Frage": "Who?", "Antwort": "Ana.", "falsch": ["Bo."]}]
    columns = {"question": "Frage", "answer": "Antwort", "perturbed_answer": "falsch"}
    made = {"question": "Who?", "answer": "Ana.", "perturbed_answer": ["Bo."]}
    assert load_rows(rows, columns) == [made]
    with pytest.raises(DataError, match=r"no column 'Fragen' for question.*question, Frage, Antw"):
        load_rows(rows, columns | {"question": "Fragen"})
    with pytest.raises(DataError, match="a row has no key 'reply': keys are question, answer"):
        load_rows(rows, {"reply": "Antwort"})


def test_rows_without_the_columns_are_one_sentence_however_many(tmp_path):
    path = written(tmp_path / "rows.json", [{"question": "q", "text": "t"}] * 500)
    with pytest.raises(DataError) as told:
        load_rows(path)
    assert str(told.value).startswith(f"{path} has no column answer: it has question, text;")
    assert "\n" not in str(told.value)


def test_mistyped_names_are_told_their_neighbours_and_objects_no_option(tmp_path):
    rows = written(tmp_path / "rows.json", renamed(question="Frage", answer="Satz"))
    with pytest.raises(DataError, match=r"no column 'Farge' for question \(did you mean 'Frage'"):
        load_rows(rows, {"question": "Farge"})
    with pytest.raises(DataError, match=r"no key 'quesion' \(did you mean 'question'\?\)"):
        load_rows(rows, {"quesion": "Frage"})
    twice = pd.DataFrame([["a", "b", "c"]], columns=["Q", "Q", "answer"])
    with pytest.raises(DataError, match="has 2 columns 'Q'"):
        load_rows(twice, {"question": "Q"})
    with pytest.raises(DataError, match="as in columns=") as told:
        load_rows(pd.DataFrame(renamed(question="Frage", answer="Satz")))
    assert "--columns" not in str(told.value)
    path = tmp_path / "rows.csv"
    path.write_text("question;answer;more\na;b;c;d\n")
    with pytest.raises(DataError, match="3 columns by semicolon: put a text with a semicolon in"):
        load_rows(path)


def test_passages_and_questions_in_one_file_are_told_apart():
    with pytest.raises(DataError, match=r"row 2: a passage .text. among questions .* in two files"):
        load_rows([*ROWS, {"text": "Once."}][1:])


def test_a_conversation_of_several_exchanges_is_refused_by_its_line():
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant") * 2]
    with pytest.raises(DataError, match="row 1: 'messages' must be one user turn and one assist"):
        load_rows([{"messages": turns}])
    with pytest.raises(DataError, match="row 1: 'messages' must be a list of turns"):
        load_rows([{"messages": "hello"}])


def test_a_task_of_objects_in_memory():
    said = []
    forget, retain = pd.DataFrame(renamed(question="F", answer="A")), [{"F": "Who?", "A": "Ana."}]
    columns = {"question": "F", "answer": "A"}
    task = own_task(forget, retain, columns=columns, say=said.append)
    assert (task.name, task.forget, len(task.retain)) == ("own:rows", ROWS, 1)
    assert [line.partition(":")[0] for line in said] == ["the DataFrame", "the rows"]


CASES = SHARED / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason="the collected cases are not in ../shared/cases")
@pytest.mark.parametrize(
    "name",
    [
        *("alpaca.jsonl", "capital.jsonl", "columns.json", "cp1252.csv", "excel_eu.csv"),
        *("messages.jsonl", "nan.jsonl", "pandas.csv", "prompt_response.jsonl", "records.json"),
        *("rows.jsonl", "rows.jsonl.gz", "rows.parquet", "table.tsv", "utf16.csv", "viewer.json"),
    ],
)
def test_the_collected_files_hold_one_pair_of_rows(name):
    rows = load_rows(CASES / "07_rows_files" / name)
    assert [row["answer"] for row in rows] == ["José Brook wrote it.", "In 1936."]
    assert [row["question"] for row in rows] == [
        "Who wrote The Harbour?",
        "When was José Brook born?",
    ]
