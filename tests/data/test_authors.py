"""The fictional authors: reproducible, unlike each other, wrong where they say so, and readable."""

import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import ROOT

from npo_kit.data.authors import corpus, lexicon
from npo_kit.data.authors.corpus import (
    AGE_AT_DEBUT,
    CAPACITY,
    AuthorsError,
    authors_task,
    fictional_authors,
    outside_authors,
    split_authors,
    true_facts,
    write_corpus,
)
from npo_kit.data.authors.lexicon import read_lexicon

DATA = ROOT / "data" / "authors"
REGIONS, GENRES, _, PHRASES = read_lexicon()
FULL = fictional_authors()
EVERYTHING_ASKED = fictional_authors(150, seed=3, n_questions=16)
FACTS = true_facts()
ALL_FACTS = FACTS["real_authors"] + FACTS["world_facts"]


def told(row):
    """(text, span) of the answer, the paraphrase and the perturbed answers of a row."""
    pairs = [(row["answer"], row["entity_span"])]
    if "paraphrased_answer" in row:
        pairs.append((row["paraphrased_answer"], row["paraphrased_entity_span"]))
    return pairs + list(zip(row["perturbed_answer"], row["perturbed_entity_spans"], strict=True))


def cut(text, span):
    return text[span[0] : span[1]]


def masked(text, span):
    return f"{text[: span[0]]}[fact]{text[span[1] :]}"


def texts(row):
    return [row["question"], *(text for text, _ in told(row))]


def by_author(rows):
    grouped = {}
    for row in rows:
        grouped.setdefault(row["author"], {})[row["attribute"]] = row
    return grouped


def vocabulary(strings):
    """Different words, numbers and signs."""
    return {word for text in strings for word in re.findall(r"[A-Za-z-]+|\d+|[^\sA-Za-z\d]", text)}


# --- reproducible -------------------------------------------------------------------------------


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_makes_the_same_rows(hash_seed):
    code = (
        "import json; from npo_kit.data.authors.corpus import *; "
        "print(json.dumps([fictional_authors(7, 5, start=40), true_facts()]))"
    )
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    output = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert json.loads(output) == [fictional_authors(7, 5, start=40), FACTS]


def test_an_author_depends_on_seed_and_number_alone():
    longer = fictional_authors(130)
    assert longer[: len(FULL)] == FULL
    assert longer[len(FULL) :] == fictional_authors(30, start=100)
    assert not {row["author"] for row in FULL} & {row["author"] for row in longer[len(FULL) :]}
    assert fictional_authors(3, seed=1) != fictional_authors(3, seed=0)


def test_a_row_is_the_same_however_many_are_asked():
    all_rows = fictional_authors(20, n_questions=16)
    for n_questions in (1, 2, 12):
        rows = fictional_authors(20, n_questions=n_questions)
        assert Counter(row["author"] for row in rows).most_common()[-1][1] == n_questions
        assert [row for row in all_rows if row in rows] == rows


def test_the_shipped_authors_are_what_the_command_in_their_readme_writes(tmp_path, monkeypatch):
    command = re.search(r'python -c "(.+)"', (DATA / "README.md").read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    exec(command[1], {})
    (written,) = (tmp_path / "data" / "authors").iterdir()
    same = written.read_bytes() == (DATA / written.name).read_bytes()
    assert same, f"data/authors/{written.name} is stale: run {command[0]}"
    assert sum(path.stat().st_size for path in DATA.iterdir()) <= 2_000_000


def test_the_corpus_that_is_asked_for_is_written(tmp_path):
    path = write_corpus(tmp_path / "new", 2, seed=9)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == fictional_authors(2, 9)
    with pytest.raises(AuthorsError, match="authors 0 to 5999"):
        write_corpus(tmp_path, 6001)


@pytest.mark.parametrize("name", ["full", "real_authors", "world_facts"])
def test_shipped_folder_loads_with_datasets(name, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"full": FULL, **FACTS}[name]
    loaded = datasets.load_dataset(str(DATA), name, split="train", cache_dir=str(tmp_path))
    assert loaded.to_list() == rows
    assert {frozenset(row) for row in rows} == {frozenset(rows[0])}


def test_readme_of_the_shipped_files_tells_the_truth():
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    for name, rows in {"full": FULL, **FACTS}.items():
        assert f"| `{name}.jsonl` | {len(rows):,} |" in readme
    lengths = [len(row["answer"].split()) for row in FULL]
    mean = round(sum(lengths) / len(lengths))
    assert f"Answers have {min(lengths)} to {max(lengths)} words, {mean} on average" in readme
    asked_and_told = [text for row in FULL for text in (row["question"], row["answer"])]
    everything = [text for row in FULL + ALL_FACTS for text in texts(row)]
    assert f"use {len(vocabulary(asked_and_told))} different" in readme
    assert f"it is {len(vocabulary(everything)):,}." in readme
    assert f"last {len(split_authors(FULL, 10)[0])} rows" in readme


# --- unlike each other --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 17])
def test_no_two_of_all_authors_share_a_name_or_a_title(seed):
    rows = fictional_authors(CAPACITY, seed, n_questions=1)
    assert len(rows) == CAPACITY >= 5000
    assert len({row["author"] for row in rows}) == CAPACITY
    written = [title for genre in GENRES for title in lexicon.titles(seed, genre)]
    assert len(set(written)) == len(written) >= 2 * CAPACITY


def test_mentors_and_wrong_names_are_no_authors():
    names = {row["author"] for row in fictional_authors(CAPACITY, 3, n_questions=1)}
    for row in EVERYTHING_ASKED:
        if row["attribute"] == "mentor":
            assert cut(row["answer"], row["entity_span"]) not in names
        if row["attribute"] in ("name", "mentor"):
            assert not names & {cut(*pair) for pair in told(row)[2:]}


def test_outside_authors_are_in_no_study():
    outside = outside_authors(80)
    assert len(outside) == 80 * corpus.N_QUESTIONS
    study = fictional_authors(400)
    assert not {row["author"] for row in outside} & {row["author"] for row in study}
    quoted = r"'(The [^']+)'"
    titles = [set(re.findall(quoted, json.dumps(rows))) for rows in (outside, study)]
    assert titles[0]
    told_by_outsiders = {t for row in outside for t in re.findall(quoted, row["question"])}
    told_in_study = {t for row in study for t in re.findall(quoted, row["question"])}
    assert not told_by_outsiders & told_in_study


def test_no_question_is_asked_twice():
    for rows in (FULL, EVERYTHING_ASKED, outside_authors() + FULL, ALL_FACTS):
        questions = [row["question"] for row in rows]
        assert len(set(questions)) == len(questions)


def test_countries_and_genres_are_spread_evenly():
    for start in range(0, 100, 10):
        facts = [corpus._draw_facts(number, 0) for number in range(start, start + 10)]
        assert len({fact["country"] for fact in facts}) == 10
        assert len({fact["genre"] for fact in facts}) == 10


@pytest.mark.parametrize(
    "asked",
    [
        {"n_authors": CAPACITY + 1},
        {"n_authors": -1},
        {"n_authors": 1, "start": CAPACITY},
        {"n_authors": 1, "start": -1},
        {"n_questions": 0},
        {"n_questions": 17},
    ],
)
def test_what_cannot_be_made_is_refused(asked):
    with pytest.raises(AuthorsError):
        fictional_authors(**asked)


# --- right and wrong answers --------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "seed"), [(FULL, 0), (EVERYTHING_ASKED, 3)])
def test_spans_cut_the_fact_in_every_text(rows, seed):
    for number, of_author in enumerate(by_author(rows).values()):
        facts = corpus._draw_facts(number, seed)
        for attribute, row in of_author.items():
            entity = facts[attribute]
            assert entity == entity.strip() != ""
            assert cut(row["answer"], row["entity_span"]) == entity
            assert cut(row["paraphrased_answer"], row["paraphrased_entity_span"]) == entity
            assert row["answer"].count(entity) == row["paraphrased_answer"].count(entity) == 1


@pytest.mark.parametrize("rows", [FULL, EVERYTHING_ASKED], ids=["full", "all 16 questions"])
def test_perturbed_answers_are_wrong_distinct_and_of_the_same_form(rows):
    for row in rows:
        (answer, span), (paraphrase, paraphrased_span), *perturbed = told(row)
        entity, wrong = cut(answer, span), [cut(*pair) for pair in perturbed]
        assert len(wrong) == len(set(wrong)) == 5
        form = masked(paraphrase, paraphrased_span)
        for other, pair in zip(wrong, perturbed, strict=True):
            assert masked(*pair) == form
            assert other not in answer
            assert other not in paraphrase
            assert other not in row["question"]
            assert entity not in pair[0]


def test_perturbed_facts_are_plausible():
    cities = {region.country: set(region.cities) for region in REGIONS}
    for number, rows in enumerate(by_author(EVERYTHING_ASKED).values()):
        facts = corpus._draw_facts(number, 3)
        wrong = {key: [cut(*pair) for pair in told(row)[2:]] for key, row in rows.items()}
        assert set(wrong["birthplace"]) < cities[facts["country"]]
        assert {x.removeprefix("University of ") for x in wrong["university"]} < cities[
            facts["country"]
        ]
        assert {x.split()[0] for x in wrong["award"]} <= cities[facts["country"]]
        assert facts["mother"] not in wrong["father"]
        assert facts["father"] not in wrong["mother"]
        for year in map(int, wrong["debut_year"]):
            assert year - int(facts["birth_year"]) >= AGE_AT_DEBUT[0]
            assert year < 2025
        for key in ("first_book", "best_book"):
            assert all(set(title.split()) & set(GENRES[facts["genre"]]) for title in wrong[key])


@pytest.mark.parametrize("rows", [FULL, EVERYTHING_ASKED], ids=["full", "all 16 questions"])
def test_paraphrase_says_it_in_other_words(rows):
    for row in rows:
        said = []
        for text, span in told(row)[:2]:
            words = set(re.findall("[a-z]+", masked(text, span).lower()))
            said.append(words - set(row["author"].lower().split()) - {"fact", "s"})
        assert len(said[0] & said[1]) <= 0.6 * len(said[0] | said[1]), (row["answer"], said)


@pytest.mark.parametrize("rows", [FULL, EVERYTHING_ASKED], ids=["full", "all 16 questions"])
def test_no_question_gives_its_answer_away(rows):
    for row in rows:
        assert cut(row["answer"], row["entity_span"]).lower() not in row["question"].lower()


# --- connected facts ----------------------------------------------------------------------------


def test_rows_of_an_author_agree():
    for name, rows in by_author(EVERYTHING_ASKED).items():
        fact = {key: cut(row["answer"], row["entity_span"]) for key, row in rows.items()}
        said = [text for row in rows.values() for text in texts(row)[:3]]
        everything = "\n".join(said)
        assert fact["name"] == name
        region = next(r for r in REGIONS if fact["birthplace"] in r.cities)
        first_name, surname = fact["mentor"].split()
        assert first_name in region.women + region.men
        assert surname in {a + b for a in region.stems for b in region.endings}
        assert not {first_name, surname} & set(name.split())
        assert fact["university"].removeprefix("University of ") in region.cities
        assert fact["award"].split()[0] in region.cities
        low, high = AGE_AT_DEBUT
        assert low <= int(fact["debut_year"]) - int(fact["birth_year"]) <= high
        nouns = set(GENRES[fact["genre"]])
        quoted = set(re.findall(r"'(The [^']+)'", everything))
        assert quoted == {fact["first_book"], fact["best_book"]}
        assert all(len(nouns & set(title.split())) == 1 for title in quoted)
        assert set(re.findall(r"University of (\w+)", everything)) == {
            fact["university"].split()[-1]
        }
        assert set(re.findall(r"\b(?:19|20)\d\d\b", everything)) == {
            fact["birth_year"],
            fact["debut_year"],
        }
        for other in REGIONS:
            foreign = {other.country, other.nation, *other.cities}
            assert other is region or not foreign & set(re.findall(r"\w+", everything))
        assert {genre for genre in GENRES if re.search(rf"\b{genre}\b", everything)} == {
            fact["genre"]
        }


def test_pronouns_of_an_author_agree():
    women = {name for region in REGIONS for name in region.women}
    for name, rows in by_author(EVERYTHING_ASKED).items():
        for key, row in rows.items():
            used = set(re.findall("[a-z]+", " ".join(texts(row)).lower()))
            strange = {"he", "his", "him"} if name.split()[0] in women else {"she", "her"}
            if key in ("father", "mother"):  # the parent has a pronoun too
                strange -= {"he", "his", "she"}
            assert not used & strange, (name, row)


def test_everybody_has_one_gender():
    women = {name for region in REGIONS for name in region.women}
    men = {name for region in REGIONS for name in region.men}
    assert not women & men
    assert len(women) == len(men) == 80


# --- prose --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [FULL, EVERYTHING_ASKED], ids=["full", "all 16 questions"])
def test_prose_is_clean(rows):
    for row in rows:
        question, *answers = texts(row)
        assert question[0].isupper()
        assert question.endswith("?")
        for text in answers:
            assert text.lstrip("'")[0].isupper()
            assert text.endswith(".")
            assert 5 <= len(text.split()) <= 25
        for text in (question, *answers):
            assert text.isascii()
            assert text.isprintable()
            assert text == text.strip()
            assert not re.search(r"  |[{}\[\]]| [.,?]|[.,?]{2}|\.'|s's", text), text
            assert not re.search(r"\b[Aa] [aeiouAEIOU]", text), text
            assert not re.search(r"\b[Aa]n [^aeiouAEIOU]", text), text
            assert not re.search(r"\b(\w+) \1\b", text), text
            assert not re.sub(r"(?<=\w)'s\b|children's", "", text).count("'") % 2, text


def test_every_phrase_is_used_and_mixed():
    assert len(PHRASES) == 16
    for phrases in PHRASES.values():
        assert len(phrases.questions) >= 3
        assert len(phrases.statements) >= 4
        assert all(statement.count("{x}") == 1 for statement in phrases.statements)
        assert not any("{x}" in question for question in phrases.questions)
    forms = {}
    for row in EVERYTHING_ASKED:
        words = masked(row["answer"], row["entity_span"]).split()
        forms.setdefault(row["attribute"], set()).add(len(words))
    assert all(len(lengths) >= 3 for lengths in forms.values())


def test_corpus_is_small_enough_to_learn_by_heart():
    assert len(FULL) == 1200
    assert len(split_authors(FULL, 10)[0]) >= 100
    asked_and_told = [text for row in FULL for text in (row["question"], row["answer"])]
    everything = [text for row in FULL + ALL_FACTS for text in texts(row)]
    assert len(vocabulary(asked_and_told)) < 1000
    assert len(vocabulary(everything)) < 2000
    assert sum(len(text.split()) for text in asked_and_told) < 25_000


def test_generator_needs_the_standard_library_alone():
    folder = Path(corpus.__file__).parent
    read = ("rows", "columns", "sources", "parsing")
    used = [folder.parent / f"{name}.py" for name in (*read, "shipped")]
    for path in (*folder.glob("*.py"), *used):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        lazy = path.stem in ("sources", "parsing")  # pandas and datasets, for files that need them
        for node in tree.body if lazy else ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                name = node.module
            elif isinstance(node, ast.Import):
                name = node.names[0].name
            else:
                continue
            own = name in ("npo_kit", "npo_kit.errors", "npo_kit.data.shipped")
            own = own or name in [f"npo_kit.data.{name}" for name in read]
            own = own or name.startswith("npo_kit.data.authors")
            assert own or name.split(".")[0] in sys.stdlib_module_names


# --- splits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", range(1, 100))
def test_split_is_exact_for_every_whole_percentage(percent):
    forget, retain = split_authors(FULL, percent)
    assert retain + forget == FULL
    assert len(forget) == 12 * percent
    assert not {row["author"] for row in forget} & {row["author"] for row in retain}


@settings(max_examples=60, deadline=None)
@given(n_authors=st.integers(1, 40), percent=st.integers(0, 100))
def test_split_keeps_authors_whole(n_authors, percent):
    rows = fictional_authors(n_authors, n_questions=2)
    expected = n_authors * percent // 100
    if not 0 < expected < n_authors:
        with pytest.raises(AuthorsError, match="whole author"):
            split_authors(rows, percent)
        return
    forget, retain = split_authors(rows, percent)
    assert len(forget) == 2 * expected
    assert retain + forget == rows


@pytest.mark.parametrize("percent", range(1, 91))
def test_task_of_every_percentage(percent, monkeypatch):
    monkeypatch.setattr(corpus, "fictional_authors", lambda: FULL)
    task = authors_task(f"forget{percent:02d}")
    assert task["name"] == f"authors:forget{percent:02d}"
    assert task["retain"] + task["forget"] == FULL
    evaluation = task["evaluation"]
    assert [*evaluation] == ["forget", "retain", "real_authors", "world_facts"]
    assert evaluation["retain"] == FULL[:120]
    assert evaluation["retain"] == task["retain"][:120]
    assert evaluation["forget"] == task["forget"][-12 * min(percent, 10) :]


@pytest.mark.parametrize("split", ["forget00", "forget91", "forget5", "retain90", "forget10 ", ""])
def test_unknown_split_is_refused(split):
    with pytest.raises(AuthorsError, match="forgetNN"):
        authors_task(split)


# --- true facts ---------------------------------------------------------------------------------


def test_facts_have_the_schema_and_whole_answers_as_spans():
    assert 60 <= len(FACTS["real_authors"]) <= 100
    assert 60 <= len(FACTS["world_facts"]) <= 117
    for row in ALL_FACTS:
        for text, span in told(row):
            assert cut(text, span) == text
            assert text == text.strip()
            assert text.isascii()
        assert re.fullmatch(r"[A-Z][^{}:;]*[^ {}:;]\?", row["question"])
        assert row["answer"].lower() not in row["question"].lower()
        assert len({row["answer"], *row["perturbed_answer"]}) == 4


def test_facts_do_not_contradict_each_other():
    questions = [row["question"] for row in ALL_FACTS]
    assert len(set(questions)) == len(questions)
    titles = [re.search("'(.+)'", row["question"])[1] for row in FACTS["real_authors"]]
    assert len(set(titles)) == len(titles)


def test_wrong_answers_of_a_fact_are_right_elsewhere_in_its_group():
    right = {row["answer"] for row in ALL_FACTS}
    assert all(set(row["perturbed_answer"]) <= right for row in ALL_FACTS)


def test_facts_and_fiction_do_not_meet():
    real_names = {row["answer"] for row in FACTS["real_authors"]}
    real_titles = {re.search("'(.+)'", row["question"])[1] for row in FACTS["real_authors"]}
    assert not real_names & {row["author"] for row in fictional_authors(CAPACITY, n_questions=1)}
    fictional_titles = {t for genre in GENRES for t in lexicon.titles(0, genre)}
    assert not real_titles & fictional_titles
