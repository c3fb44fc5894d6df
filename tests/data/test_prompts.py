"""Prompts, the token boundary, end tokens and batches, against what they are defined to be."""

import datetime as clock
from collections import Counter

import pytest
import torch
import transformers
from conftest import QUESTIONS, make_model, make_row, make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from npo_kit.data.prompts import Encoded, PromptError, PromptFormat
from npo_kit.errors import KitError
from npo_kit.models.forward import read_answers
from npo_kit.models.generation import generate

BOS, EOS, IM_START, IM_END = range(4)  # of the shared tokenizer

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_SYSTEM = "<|im_start|>system\nToday is {{ date_string }}.<|im_end|>\n" + CHATML
GEMMA = (  # begins with bos, strips content, ends turns with a token that is not eos
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message.role == 'assistant' else message.role }}\n"
    "{{ message.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA = (  # no end of turn but eos
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}"
    "[INST] {{ message.content }} [/INST]{% else %} {{ message.content }} {{ eos_token }}"
    "{% endif %}{% endfor %}"
)


def with_template(template, **options):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    if options:
        tokenizer.add_special_tokens(options)
    return tokenizer


def adding(single, tokenizer=None):
    """A tokenizer that writes special tokens around a text by itself."""
    tokenizer = tokenizer or make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=single, special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    return tokenizer


def texts(tokenizer, encoded):
    """Prompt and answer as text, special tokens shown, end token left out."""
    cut = encoded.prompt_length
    return tokenizer.decode(encoded.ids[:cut]), tokenizer.decode(encoded.ids[cut:-1])


# --- the token boundary -------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["qa", "llama2"])
@pytest.mark.parametrize(("question", "answer"), [*QUESTIONS[:4], ("¿Qué?", "🙂é 日本")])
def test_prompt_and_answer_are_the_tokens_of_the_joint_text(tokenizer, style, question, answer):
    encoded = PromptFormat(tokenizer, style).encode(question, answer)
    prompt = {
        "qa": f"Question: {question}\nAnswer: ",
        "llama2": f"[INST] {question} [/INST]",
    }[style]
    assert list(encoded.ids) == [*tokenizer(prompt + answer)["input_ids"], EOS]
    assert encoded.answer_length == len(encoded.ids) - encoded.prompt_length
    # the boundary by another way: the longest start of the ids that spells no more than the prompt
    starts = range(len(encoded.ids))
    fits = [i for i in starts if prompt.startswith(tokenizer.decode(encoded.ids[:i]))]
    assert encoded.prompt_length == max(fits)


def test_a_space_that_melts_into_the_answers_first_token_goes_with_the_answer(tokenizer):
    form = PromptFormat(tokenizer, "qa")
    encoded = form.encode("Who painted the harbour?", "Ana Brook")
    prompt, answer = texts(tokenizer, encoded)
    assert (prompt, answer) == ("Question: Who painted the harbour?\nAnswer:", " Ana Brook")
    first = tokenizer.decode([encoded.ids[encoded.prompt_length]])
    assert first.startswith(" A")  # the space really is in one token with the letter
    digits = form.encode("When?", "\n1987")  # and here it stays
    assert texts(tokenizer, digits) == ("Question: When?\nAnswer: ", "\n1987")


def test_the_llama2_answer_follows_without_a_space(tokenizer):
    encoded = PromptFormat(tokenizer, "llama2").encode("Who?", "Ana")
    assert texts(tokenizer, encoded) == ("[INST] Who? [/INST]", "Ana")


plain = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
answers = plain | st.sampled_from(
    [" x", "\n", "\nx", "  y ", "\u0301a", "👩‍👩‍👧", "{x}", "</s>", "%s"]
)


@settings(max_examples=150, deadline=None)
@given(question=plain, answer=answers)
def test_the_answer_tokens_spell_the_answer(tokenizer, question, answer):
    encoded = PromptFormat(tokenizer, "qa").encode(question, answer)
    prompt, spelled = texts(tokenizer, encoded)
    assert prompt + spelled == f"Question: {question}\nAnswer: {answer}"
    # one token may straddle: it is the answer's, with the space before it and nothing more
    assert spelled in (answer, " " + answer)
    assert encoded.ids[-1] == EOS
    assert not {BOS, EOS, IM_START, IM_END} & set(encoded.ids[:-1])


@settings(max_examples=100, deadline=None)
@given(question=plain, one=answers, other=answers)
def test_the_prompt_hangs_on_the_answer_only_where_a_token_straddles(
    tokenizer, question, one, other
):
    form = PromptFormat(tokenizer, "qa")
    first, second = (form.encode(question, answer) for answer in (one, other))
    prompts = sorted((e.ids[: e.prompt_length] for e in (first, second)), key=len)
    assert prompts[1][: len(prompts[0])] == prompts[0]
    assert tokenizer.decode(prompts[1][len(prompts[0]) :]) in ("", " ")


@pytest.mark.parametrize(("style", "straddle"), [("qa", ("", " ")), ("chat", ("",))])
def test_a_prompt_to_generate_from_is_the_start_of_every_row_with_that_question(style, straddle):
    tokenizer = with_template(CHATML)
    form = PromptFormat(tokenizer, style)
    for question, answer in QUESTIONS:
        ids = form.encode_prompt(question)
        encoded = form.encode(question, answer)
        short, long = sorted([ids, encoded.ids[: encoded.prompt_length]], key=len)
        assert long[: len(short)] == short
        assert tokenizer.decode(long[len(short) :]) in straddle
        assert form.prompt(question).startswith(tokenizer.decode(ids))


def test_an_answer_without_tokens_is_its_end_token(tokenizer):
    encoded = PromptFormat(tokenizer, "qa").encode("Who?", "")
    assert texts(tokenizer, encoded) == ("Question: Who?\nAnswer: ", "")
    assert encoded.answer_length == 1


@pytest.mark.parametrize("question", ["{x}", "{question}", "{0} {", "%s %(x)s", "{{ bos_token }}"])
@pytest.mark.parametrize("style", ["qa", "llama2", "chat"])
def test_braces_in_a_question_are_text(question, style):
    tokenizer = with_template(CHATML)
    encoded = PromptFormat(tokenizer, style).encode(question, "{answer}")
    prompt, answer = texts(tokenizer, encoded)
    assert question in prompt
    assert answer.strip() == "{answer}"


# --- tokens that tokenizers add ------------------------------------------------------------------


@pytest.mark.parametrize("single", ["<s> $A", "<s> $A </s>", "$A </s>"])
def test_added_tokens_frame_the_joint_text_once(tokenizer, single):
    bare = PromptFormat(tokenizer, "qa").encode("Who?", "Ana")
    framed = PromptFormat(adding(single), "qa").encode("Who?", "Ana")
    start = (BOS,) if single.startswith("<s>") else ()
    assert framed.ids == start + bare.ids
    assert framed.prompt_length == len(start) + bare.prompt_length
    assert list(framed.ids).count(EOS) == 1


def test_a_chat_template_writes_its_own_start_and_no_second_is_added():
    tokenizer = adding("<s> $A </s>", with_template(LLAMA))
    encoded = PromptFormat(tokenizer).encode("Who?", "Ana")
    assert encoded.ids[0] == BOS
    assert Counter(encoded.ids)[BOS] == Counter(encoded.ids)[EOS] == 1


# --- chat templates ------------------------------------------------------------------------------


def test_the_style_is_the_template_where_there_is_one():
    assert PromptFormat(make_tokenizer()).style == "qa"
    assert PromptFormat(with_template(CHATML)).style == "chat"
    assert PromptFormat(with_template(CHATML), "qa").style == "qa"


@pytest.mark.parametrize(
    ("template", "added", "end"),
    [
        (CHATML, {}, "<|im_end|>"),
        (WITH_SYSTEM, {}, "<|im_end|>"),
        (GEMMA, {"extra_special_tokens": ["<start_of_turn>", "<end_of_turn>"]}, "<end_of_turn>"),
        (LLAMA, {}, "</s>"),
        ("{% for message in messages %}{{ message.content }}{% endfor %}", {}, "</s>"),  # no end
        ("<s>{{ messages[0].content }}\nASSISTANT:", {}, "</s>"),  # leaves the answer out
    ],
    ids=["chatml", "system", "gemma", "llama", "none", "no-answer"],
)
def test_the_end_token_is_the_templates_where_it_has_one(template, added, end):
    tokenizer = with_template(template, **added)
    form = PromptFormat(tokenizer)
    assert tokenizer.convert_ids_to_tokens(form.end_id) == end
    encoded = form.encode("Who?", "Ana")
    assert encoded.ids[-1] == form.end_id
    assert texts(tokenizer, encoded)[1].strip() == "Ana"
    assert PromptFormat(tokenizer, "qa").end_id == EOS


def test_an_added_token_of_spaces_after_the_answer_is_not_its_end():
    template = "{% for message in messages %}{{ message.content }}   {{ eos_token }}{% endfor %}"
    tokenizer = with_template(template)
    tokenizer.add_tokens(["   "])  # as Phi-1.5's runs of spaces
    assert PromptFormat(tokenizer).end_id == EOS


ANSWERED = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
TURNS = {  # what families of chat models write before an answer
    "an empty think block": ANSWERED
    + "<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",  # Qwen3
    "none, though the prompt opens one": "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",  # R1, QwQ
    "a channel": ANSWERED + "<|channel|>final<|message|>{% endif %}{{ m.content }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}",  # gpt-oss
    "a space": LLAMA,  # Llama-2, Mistral, Vicuna
    "a system turn": "{% if messages[0].role != 'system' %}<|im_start|>system\nBe brief. "
    "{{ date_string }}<|im_end|>\n{% endif %}" + CHATML,  # Llama 3, SmolLM2
}


@pytest.mark.parametrize("template", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("system", [None, "You are a helpful assistant."])
@pytest.mark.parametrize("date", [None, "10 Apr 2025"])
def test_before_an_answer_stands_what_the_template_writes_there(template, system, date):
    """By the tokenizer's own rendering, for scoring, training and generation alike."""
    tokenizer = with_template(template)
    tokenizer.add_tokens(["<think>", "</think>", "<|channel|>", "<|message|>"])
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ana Brook."}]
    turns = [{"role": "system", "content": system}] * (system is not None) + turns
    whole = tokenizer.apply_chat_template(turns, tokenize=False, date_string=date or "26 Jul 2024")
    form = PromptFormat(tokenizer, system_prompt=system, chat_date=date)
    assert form.prompt("Who?") + "Ana Brook." == whole[: whole.index("Ana") + len("Ana Brook.")]
    own = tokenizer(whole, add_special_tokens=False)["input_ids"]
    encoded = form.encode("Who?", "Ana Brook.")
    assert list(encoded.ids[:-1]) == own[: len(encoded.ids) - 1]
    spoken_after = tokenizer.decode(form.encode_prompt("Who?"))
    assert spoken_after.rstrip() == form.prompt("Who?").rstrip()  # a space may go with the answer


def test_markers_of_a_template_stay_out_of_texts():
    tokenizer = with_template(TURNS["an empty think block"])
    tokenizer.add_tokens(["<think>", "</think>", "   "])
    form = PromptFormat(tokenizer)
    said = tokenizer("<think>\n\n</think>Ana   Brook <|im_end|>", add_special_tokens=False)
    assert form.decode(said["input_ids"]) == "Ana   Brook"


def test_a_system_prompt_or_a_date_that_cannot_be_used_is_refused():
    with pytest.raises(PromptError, match="prompt style qa has none"):
        PromptFormat(make_tokenizer(), "qa", system_prompt="Be brief.")
    with pytest.raises(PromptError, match="'tomorrow' is no date: write it like '26 Jul 2024'"):
        PromptFormat(with_template(CHATML), chat_date="tomorrow")


def test_a_prompt_is_the_template_with_its_generation_prompt():
    form = PromptFormat(with_template(WITH_SYSTEM))
    assert form.prompt("Who?") == (
        "<|im_start|>system\nToday is 26 Jul 2024.<|im_end|>\n"
        "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    )
    stripped = with_template(GEMMA, extra_special_tokens=["<start_of_turn>", "<end_of_turn>"])
    prompt = "<s><start_of_turn>user\nWho?<end_of_turn>\n<start_of_turn>model\n"
    assert PromptFormat(stripped).prompt("  Who?\n") == prompt


@pytest.mark.parametrize(
    ("stamp", "shown"),
    [
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ("{{ strftime_now('%Y-%m-%d') }}", "2024-07-26"),
        ("{{ strftime_now('%A, %B %d') }}", "Friday, July 26"),
        ("{{ strftime_now('%Y') | int + 1 }}", "2025"),
        ("{% if strftime_now is defined %}{{ strftime_now('%H:%M') }}{% endif %}", "00:00"),
        ("{% macro day() %}{{ strftime_now('%d') }}{% endmacro %}{{ day() }}", "26"),
        ("{{ date_string }}", "26 Jul 2024"),
        (
            "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
            "{% endif %}{{ date_string }}",
            "26 Jul 2024",
        ),
    ],
)
def test_a_prompt_does_not_change_with_the_clock(stamp, shown, monkeypatch):
    form = PromptFormat(with_template("\n:" + stamp + "|" + CHATML))
    now = form.prompt("Who?")
    assert now.startswith("\n:" + shown + "|<|im_start|>user\nWho?")

    class Later(clock.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 1, 2, 3, 4, 5)

    monkeypatch.setattr(transformers.utils.chat_template_utils, "datetime", Later)
    assert form.prompt("Who?") == now
    assert PromptFormat(form.tokenizer).encode("Who?", "Ana") == form.encode("Who?", "Ana")


@pytest.mark.parametrize("date", ["26 Jul 2024", "04 Apr 2025"])
def test_a_given_date_is_what_a_clock_would_say(date):
    """In the form of strftime, by every code that a template may use; `%-d` has no leading zero."""
    day = clock.datetime.strptime(date, "%d %b %Y")
    for code in ["%d", "%-d", "%e", "%b", "%B", "%m", "%-m", "%Y", "%y", "%a", "%A", "%j", "%F"]:
        form = PromptFormat(
            with_template("{{ strftime_now('" + code + "') }}|" + CHATML), chat_date=date
        )
        assert form.prompt("Who?").partition("|")[0] == day.strftime(code)
    printed = PromptFormat(with_template("{{ date_string }}|" + CHATML), chat_date=date)
    assert printed.prompt("Who?").startswith(f"{date}|")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('System role needed') }}", "TemplateError: System role needed"),
        ("{{ messages[5].content.x.y }}", "UndefinedError"),
        ("{% if %}", "TemplateSyntaxError"),
        ({"tool_use": CHATML}, "ValueError"),
    ],
)
def test_a_template_that_fails_is_one_sentence(template, reason):
    with pytest.raises(PromptError) as caught:
        PromptFormat(with_template(template))
    text = str(caught.value)
    assert "chat template fails" in text
    assert reason in text
    assert text.endswith("choose prompt style qa")
    assert "\n" not in text


def test_a_template_that_fails_for_one_question_names_it():
    picky = "{% if 'why' in messages[0].content %}{{ raise_exception('no') }}{% endif %}" + CHATML
    form = PromptFormat(with_template(picky))
    rows = [make_row(0), {"question": "And why?", "answer": "So."}]
    with pytest.raises(PromptError, match=r"row 2: .*'And why\?'"):
        form.encode_all(rows)


def test_a_template_without_the_question_is_refused():
    with pytest.raises(PromptError, match="leaves the question out"):
        PromptFormat(with_template("<|im_start|>assistant\n"))


# --- text that looks like special tokens ---------------------------------------------------------


@pytest.mark.parametrize("style", ["qa", "llama2", "chat"])
@pytest.mark.parametrize(
    "text", ["</s>", "<|im_end|>", "a</s>b <s>", "<|im_end|>\n<|im_start|>user"]
)
def test_a_special_token_in_a_row_is_text_and_the_templates_own_stay_special(style, text):
    tokenizer = with_template(WITH_SYSTEM)
    form = PromptFormat(tokenizer, style)
    clean, looks_special = form.encode("x", "y"), form.encode(f"x{text}", f"{text}y")
    special = {BOS, EOS, IM_START, IM_END}
    assert [i for i in looks_special.ids if i in special] == [i for i in clean.ids if i in special]
    cut = looks_special.prompt_length
    assert not special & set(looks_special.ids[cut:-1])
    prompt, answer = texts(tokenizer, looks_special)
    assert prompt + answer == form.prompt(f"x{text}") + f"{text}y"
    assert form.decode(looks_special.ids[cut:-1]) == f"{text}y"


def test_a_question_that_is_nothing_but_a_special_token_is_text():
    form = PromptFormat(with_template(WITH_SYSTEM))
    encoded = form.encode("<|im_end|>", "<|im_end|>")
    assert Counter(encoded.ids)[IM_END] == 3  # system, user, and the end of the answer
    assert encoded.ids[-1] == IM_END


def test_an_end_token_that_a_tokenizer_cannot_read_as_text_is_refused_with_the_row():
    tokenizer = with_template(CHATML.replace("<|im_end|>", "<end>"))
    tokenizer.add_tokens(["<end>"])  # added, but not as a special token: it is always matched
    form = PromptFormat(tokenizer)
    assert tokenizer.convert_ids_to_tokens(form.end_id) == "<end>"
    with pytest.raises(PromptError, match=r"row 1: .*'<end>'.*\(question: 'Is <end> it\?'\)"):
        form.encode_all([{"question": "Is <end> it?", "answer": "Yes."}])


def test_a_special_token_in_a_question_that_the_template_rewrites_is_refused():
    tokenizer = with_template("{{ messages[0].content | length }}" + CHATML)
    form = PromptFormat(tokenizer)
    assert form.encode("A longer one?", "Yes.")  # fine as long as nothing looks special
    with pytest.raises(PromptError, match="special token: take that out"):
        form.encode("A </s> longer one?", "Yes.")


# --- end tokens, padding, contexts ---------------------------------------------------------------


def test_the_end_token_is_labelled_and_attended_where_pad_is_eos(tokenizer, model):
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == EOS
    form = PromptFormat(tokenizer, "qa")
    encoded = form.encode_all([make_row(4), make_row(5)])  # of different lengths
    seen = {}
    model.register_forward_pre_hook(lambda _, __, kwargs: seen.update(kwargs), with_kwargs=True)
    with torch.no_grad():
        together = read_answers(model, encoded)
        apart = [read_answers(model, [one]).logps[0].sum() for one in encoded]
    for number, one in enumerate(encoded):
        n = one.answer_length
        assert together.mask[number].tolist() == [1] * n + [0] * (together.mask.shape[1] - n)
        assert together.labels[number, n - 1] == EOS
        assert together.logps[number, n - 1] < 0
    torch.testing.assert_close(together.logps.sum(1), torch.stack(apart), atol=1e-5, rtol=0)
    with torch.no_grad():
        read_answers(model, encoded)
    # all that something is predicted from: the end token is the last that is predicted, and last
    assert seen["attention_mask"].sum(1).tolist() == [len(one.ids) - 1 for one in encoded]


def test_a_tokenizer_without_a_pad_token_works_throughout():
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    form = PromptFormat(tokenizer)
    encoded = form.encode_all([make_row(0), make_row(4)])
    model = make_model(len(tokenizer))
    answers = read_answers(model, encoded)
    assert torch.isfinite(answers.logps).all()
    prompts = [form.encode_prompt(question) for question, _ in QUESTIONS[:3]]
    generated = generate(model, prompts, form.end_id, max_new_tokens=3)
    assert [len(ids) <= 3 for ids in generated] == [True] * 3
    assert form.decode([]) == ""


def test_tokenizers_and_styles_that_cannot_be_used_are_refused():
    tokenizer = make_tokenizer()
    with pytest.raises(PromptError, match="'poem': choose one of auto, chat, qa, llama2"):
        PromptFormat(tokenizer, "poem")
    with pytest.raises(PromptError, match="no chat template: choose prompt style qa or llama2"):
        PromptFormat(tokenizer, "chat")

    class Slow:
        is_fast, chat_template = False, None

    for slow in (Slow(), object()):
        with pytest.raises(PromptError, match="character offsets: use its fast version"):
            PromptFormat(slow)
    endless = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(KitError, match="no end token: set"):
        PromptFormat(endless)


def test_every_row_that_is_too_long_is_named_and_none_is_cut(tokenizer):
    rows = [make_row(number) for number in range(8)] * 6
    lengths = [len(one.ids) for one in PromptFormat(tokenizer).encode_all(rows)]
    limit = sorted(set(lengths))[-4]
    long = [number for number, length in enumerate(lengths, 1) if length > limit]
    assert len(long) == 18
    with pytest.raises(PromptError) as caught:
        PromptFormat(tokenizer, context=limit).encode_all(rows)
    said = str(caught.value).split("\n")
    assert len(said) == len(long)
    for line, number in zip(said, long, strict=True):
        assert line.startswith(f"row {number}: ")
        assert rows[number - 1]["question"] in line
        assert f"has {lengths[number - 1]} tokens, the model's context holds {limit}" in line
    exact = PromptFormat(tokenizer, context=max(lengths)).encode_all(rows)
    assert max(len(one.ids) for one in exact) == max(lengths)


def test_decoding_leaves_special_tokens_out(tokenizer):
    form = PromptFormat(tokenizer)
    ids = tokenizer("  Ana Brook\n")["input_ids"]
    assert form.decode([BOS, *ids, EOS, EOS]) == "Ana Brook"


def test_encoded_knows_its_answer_length():
    assert Encoded((5, 6, 7, 8), 1).answer_length == 3
