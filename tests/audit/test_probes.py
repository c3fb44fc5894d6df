"""Probes: which words of an answer are its fact, and which tokens."""

import pytest
from conftest import QUESTIONS
from places import SHARED

from npo_kit.audit.leak import tells
from npo_kit.audit.probes import TOFU_ROWS_PER_AUTHOR, probes_of
from npo_kit.data.prompts import PromptFormat
from npo_kit.data.tasks import load_authors, load_tofu
from npo_kit.models.loading import load_model


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return PromptFormat(tokenizer)


def entities(rows, prompts, **options):
    return [probe.entity for probe in probes_of(rows, prompts, **options)[0]]


def row(question, answer, **more):
    return {"question": question, "answer": answer, **more}


def test_the_tokens_of_a_probe_hold_the_entity_and_no_more_words(prompts):
    rows = [row(q, a) for q, a in QUESTIONS]
    for probe in probes_of(rows, prompts)[0]:
        tokens = [probe.encoded.ids[place] for place in probe.places]
        text = prompts.tokenizer.decode(tokens)
        assert probe.entity in text
        assert text.strip(" .,") == probe.entity
        assert probe.last <= probe.encoded.answer_length - 1  # the end token is no part of it


def test_a_given_span_comes_first_then_a_given_entity(prompts):
    told = row("Who?", "It was Ana Brook of Porto.", entity="Porto", entity_span=[7, 16])
    assert entities([told], prompts) == ["Ana Brook"]
    del told["entity_span"]
    assert entities([told], prompts) == ["Porto"]
    told["entity"] = "Lisbon"
    assert probes_of([told], prompts) == ([], 1)


@pytest.mark.parametrize(
    ("asked", "answer", "entity"),
    [
        ("What is Ana's book?", "Ana's book is called Salt and Snow.", "called Salt and Snow"),
        ("Who is it?", "It is extraordinarily clear: Iver Dahl.", "Iver Dahl"),
        ("When?", "Unquestionably, that was in 1987.", "that was in 1987"),
        ("What are Ana’s books?", "The books of Ana are Tides.", "Tides"),
        ("Who of the Irish-born?", "Of the Irish, it is Iver.", "Iver"),
        ("Where does he live?", "He does live where? He does.", None),
        ("What does he fear?", "He fears deep water. Letters also.", "fears deep water"),
    ],
)
def test_the_fact_is_the_longest_run_of_own_words_and_names_come_first(
    prompts, asked, answer, entity
):
    own = row(asked, answer, author="own")
    other = row("?", "It is unquestionably, extraordinarily clear.", author="other")
    found = [p.entity for p in probes_of([own, other], prompts)[0] if p.author == "own"]
    assert found == ([] if entity is None else [entity])


def test_words_of_the_same_author_stay_own_and_words_of_others_do_not(prompts):
    rows = [
        row("Who won?", "The winner is Hsiao Yun-Hwa."),
        row("Who sang?", "The singer is Hsiao Yun-Hwa."),
        row("Who lost?", "The loser is Iver Dahl."),
        row("Who wept?", "The weeper is Iver Dahl."),
    ]
    found, _ = probes_of(rows, prompts, rows_per_author=2)
    assert [probe.entity for probe in found][::2] == ["Hsiao Yun-Hwa", "Iver Dahl"]
    assert [probe.author for probe in found] == ["unit 0", "unit 0", "unit 1", "unit 1"]
    assert "Hsiao Yun-Hwa" not in entities(rows, prompts)  # each row a unit of its own


def test_the_kits_rows_have_the_entities_that_they_were_made_with():
    _, tokenizer = load_model("pocket", device="cpu")
    rows = load_authors().evaluation["forget"]
    found, skipped = probes_of(rows, PromptFormat(tokenizer))
    assert skipped == 0
    assert {probe.author for probe in found} == {row["author"] for row in rows}
    for probe in found:
        start, end = probe.row["entity_span"]
        assert probe.entity == probe.row["answer"][start:end]
        said = tokenizer.decode([probe.encoded.ids[place] for place in probe.places])
        assert probe.entity.lower() in said.lower()


@pytest.mark.skipif(not (SHARED / "tofu").is_dir(), reason="TOFU is not in ../shared/tofu")
def test_tofus_facts_are_mostly_names_and_never_in_the_question(prompts):
    rows = load_tofu("forget10", SHARED / "tofu").evaluation["forget"]
    found, skipped = probes_of(rows, prompts, rows_per_author=TOFU_ROWS_PER_AUTHOR)
    assert len(found) + skipped == 400
    assert skipped < 60
    assert len({probe.author for probe in found}) == 20
    assert found[0].entity == "Hsiao Yun-Hwa"
    assert [p.entity for p in found if not tells(p.entity, p.entity, p.row["question"])] == []
    names = [p for p in found if any(c.isupper() or c.isdigit() for c in p.entity)]
    assert len(names) > 150
