"""Other forms of a question: what is asked, what counts as told, and what is left out."""

import json
from dataclasses import replace

import pytest
from conftest import make_model
from pocket_bench import Untouched, pocket_bench

from npo_kit.audit import formats
from npo_kit.audit.bench import Bench
from npo_kit.audit.leak import tells
from npo_kit.audit.probes import probes_of
from npo_kit.data.authors.corpus import fictional_authors
from npo_kit.data.prompts import PromptFormat

OTHER_FORMS = ("paraphrase", "cloze", "reversed", "prefilled", "casing", "choice")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITHOUT_SYSTEM = CHATML.replace(
    "{% for m",
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}{% for m",
    1,
)


@pytest.fixture(scope="module")
def bench():
    return pocket_bench()


@pytest.fixture(scope="module")
def reading(bench):
    return formats.measure(bench.original, bench)


@pytest.fixture
def plain_bench(tokenizer, task):
    """Rows without any field of the kit's own, on a model of random weights."""
    prompts, model = PromptFormat(tokenizer), make_model(len(tokenizer))
    forget, _ = probes_of(task.forget, prompts)
    return Bench(prompts, task, forget, forget, model, model)


def test_the_forms_of_the_kits_own_row(bench):
    by_attribute = {probe.row["attribute"]: probe for probe in bench.forget}
    probe = by_attribute["birth_year"]
    name, said = probe.author, probe.row["answer"]
    asked = {kind: form(probe, bench) for kind, form in formats.FORMS.items()}
    assert asked["plain"].question == probe.row["question"]
    assert asked["paraphrase"].question != probe.row["question"]
    assert name in asked["paraphrase"].question
    assert "born" in asked["paraphrase"].question or "birth" in asked["paraphrase"].question
    assert asked["cloze"].question == (
        f"{probe.row['question']} Fill in the gap: {said.replace(probe.entity, '___')}"
    )
    assert asked["casing"].question == probe.row["question"].lower()
    assert asked["reversed"] is None  # others were born in that year
    begun = bench.prompts.tokenizer.decode(asked["prefilled"].begun)
    assert said.startswith(begun.strip())
    assert probe.entity not in begun


def test_the_author_is_asked_for_by_a_fact_that_nobody_else_has(bench):
    probe = next(p for p in bench.forget if p.row["attribute"] == "first_book")
    form = formats.FORMS["reversed"](probe, bench)
    assert form.wanted == probe.author
    assert probe.entity in form.question
    assert probe.author.split()[-1] not in form.question
    shared = {**probe.row, "author": "Ana Brook"}
    task = replace(bench.task, retain=[*bench.task.retain, shared])
    assert formats.FORMS["reversed"](probe, replace(bench, task=task)) is None
    named = next(p for p in bench.forget if p.row["attribute"] == "name")
    assert formats.FORMS["reversed"](named, bench) is None


def test_every_attribute_but_the_name_has_another_question():
    rows = fictional_authors(10, n_questions=16)
    other = {row["attribute"]: formats._reworded(row) for row in rows}
    assert {attribute for attribute, question in other.items() if question is None} == {"name"}
    for row in rows:
        question = formats._reworded(row)
        assert question != row["question"]
        assert question is None or (row["author"] in question and "{" not in question)


def test_a_paraphrased_question_of_the_row_comes_first(bench):
    probe = replace(bench.forget[1], row={**bench.forget[1].row, "paraphrased_question": "Tell?"})
    assert formats.FORMS["paraphrase"](probe, bench).question == "Tell?"


def test_no_question_of_any_form_tells_the_fact(bench, reading):
    for kind, found in reading.detail["formats"].items():
        for probe, question in zip(bench.forget, found["questions"], strict=True):
            wanted = probe.author if kind == "reversed" else probe.entity
            assert question is None or tells(wanted, wanted, question), (kind, question)


def test_the_options_of_a_choice_differ_in_the_entity_alone(bench):
    for probe in bench.forget:
        options = formats._options(probe)
        assert options[0] == probe.row["answer"]
        assert len(options) == 6
        start, end = probe.row["entity_span"]
        for option, wrong, span in zip(
            options[1:],
            probe.row["perturbed_answer"],
            probe.row["perturbed_entity_spans"],
            strict=True,
        ):
            assert option == options[0][:start] + wrong[slice(*span)] + options[0][end:]


def test_options_without_spans_are_whole_answers(bench):
    row = {key: v for key, v in bench.forget[0].row.items() if "span" not in key}
    probe = replace(bench.forget[0], row=row)
    assert formats._options(probe) == [row["paraphrased_answer"], *row["perturbed_answer"]]
    del row["perturbed_answer"]
    assert formats._options(probe) == [row["answer"]]


def test_the_fact_is_replaced_as_a_word():
    assert formats._with("Law? A lawyer of law.", "law", r"\1") == r"Law? A lawyer of \1."
    assert formats._with("He wrote (or drew) it.", "(or drew)", "x") == "He wrote x it."


def test_the_original_chooses_right_and_the_retained_only_guesses(bench, reading):
    rows = reading.detail["formats"]["choice"]["rows"]
    assert set(rows) <= {1.0, -0.2}
    assert rows.count(1.0) > 0.9 * len(rows)
    retained = formats._chosen(bench.retained, bench)
    assert abs(retained["rate"]) < 4 * (5 / 25 / len(rows)) ** 0.5  # its deviation when guessing


def test_the_value_is_the_mean_of_the_forms_that_a_row_allows(bench, reading):
    found = reading.detail["formats"]
    assert tuple(found) == OTHER_FORMS
    for number, value in enumerate(reading.rows):
        own = [found[kind]["rows"][number] for kind in OTHER_FORMS]
        known = [float(v) for v in own if v is not None]
        assert value == pytest.approx(sum(known) / len(known))
    for part in found.values():
        known = [v for v in part["rows"] if v is not None]
        assert part["rate"] == pytest.approx(sum(known) / len(known))
    json.dumps(reading.detail, allow_nan=False)


def test_a_row_is_judged_the_same_in_any_order_and_company(bench, reading):
    back = replace(bench, forget=bench.forget[::-1])
    assert formats.measure(bench.original, back).rows == reading.rows[::-1]
    alone = formats.measure(bench.original, replace(bench, forget=bench.forget[:1]))
    assert alone.rows == reading.rows[:1]


def test_the_original_tells_more_and_alone_has_a_guard(bench, reading):
    told = []
    noted = replace(bench, done=lambda done, total: told.append((done, total)))
    with Untouched(bench.original, bench.retained):
        retained = formats.measure(bench.retained, noted)
    assert told == [(i, len(told)) for i in range(1, len(told) + 1)]
    assert reading.value > retained.value + 0.2
    assert reading.detail["formats"]["prefilled"]["rate"] > 0.8
    assert "guarded" in reading.detail
    assert "guarded" not in retained.detail
    asked = reading.detail["guarded"]["questions"]
    assert asked == [f"{formats.GUARD} {probe.row['question']}" for probe in bench.forget]


def test_rows_without_the_kits_fields_have_the_forms_that_they_allow(plain_bench):
    reading = formats.measure(plain_bench.original, plain_bench)
    assert reading.detail["formats"]["paraphrase"] == {
        "rate": None,
        **{key: [None] * len(reading.rows) for key in ("rows", "questions", "texts")},
    }
    assert reading.detail["formats"]["reversed"]["rate"] is None
    assert reading.detail["formats"]["choice"]["rows"].count(None) == 0  # three wrong answers
    assert None not in reading.rows


@pytest.mark.parametrize("template", [CHATML, WITHOUT_SYSTEM], ids=["system", "no system"])
def test_the_guard_is_the_system_turn_of_a_chat_template_that_has_one(
    plain_bench, template, monkeypatch
):
    tokenizer, lines = plain_bench.prompts.tokenizer, []
    monkeypatch.setattr(tokenizer, "chat_template", template)
    monkeypatch.setattr(
        formats, "generate", lambda model, prompts, *_: lines.extend(prompts) or [[]] * len(prompts)
    )
    bench = replace(plain_bench, prompts=PromptFormat(tokenizer, "chat"))
    guarded = formats._guarded(bench.original, bench)
    question = bench.forget[0].row["question"]
    text = tokenizer.decode(lines[0])
    if template is CHATML:
        assert guarded["questions"][0] == question
        assert f"system\n{formats.GUARD}" in text
    else:
        assert guarded["questions"][0] == f"{formats.GUARD} {question}"
        assert f"user\n{formats.GUARD} {question}" in text


def test_a_fact_inside_a_longer_word_has_no_cloze(bench):
    row = {"question": "Where?", "answer": "In Farolandia."}
    assert formats.FORMS["cloze"](replace(bench.forget[0], row=row, entity="Faro"), bench) is None


def test_a_form_longer_than_the_context_is_left_out(bench):
    short = PromptFormat(bench.prompts.tokenizer, context=32)
    found = formats._asked(
        bench.original,
        replace(bench, prompts=short),
        [formats.Form("Where was she born?", "Faro"), formats.Form("Where? " * 40, "Faro"), None],
    )
    assert [row is None for row in found["rows"]] == [False, True, True]
