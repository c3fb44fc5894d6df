"""The shipped corpus: fictional authors in TOFU's schema, and true facts beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from npo_kit.data.authors import lexicon
from npo_kit.data.authors.lexicon import PER_REGION, read_lexicon
from npo_kit.data.rows import Row, load_rows
from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError

N_AUTHORS = 100  # so that every whole percentage is a whole number of authors
N_QUESTIONS = 12  # per author, of 16 attributes; forget10 has 120 rows
CAPACITY = PER_REGION * 10  # authors of one seed, from ten regions
N_PERTURBED = 5  # wrong answers of a row, as in TOFU
FIRST_BIRTH, LAST_BIRTH = 1935, 1975
AGE_AT_DEBUT = (22, 34)  # years


class AuthorsError(KitError):
    """A corpus that cannot be made; the message says what can."""


def fictional_authors(
    n_authors: int = N_AUTHORS, seed: int = 0, *, start: int = 0, n_questions: int = N_QUESTIONS
) -> list[Row]:
    """Return the rows of authors `start` to `start + n_authors - 1` of this seed, in that order.

    An author depends on seed and number alone, so a longer corpus begins with the shorter one.
    Each of a seed's 6,000 authors has a name and titles of their own. A row has TOFU's keys
    `question`, `answer`, `paraphrased_answer` and `perturbed_answer` (five texts), the character
    spans [start, end) of the fact in them (`entity_span`, `paraphrased_entity_span`,
    `perturbed_entity_spans`), and `author` and `attribute`. `n_questions`, 1 to 16 per author, does
    not change the row of an attribute. Raises AuthorsError beyond the capacity.
    """
    if n_authors < 0 or start < 0 or start + n_authors > CAPACITY:
        raise AuthorsError(
            f"authors {start} to {start + n_authors - 1} were asked for: "
            f"a seed has authors 0 to {CAPACITY - 1}"
        )
    attributes = len(read_lexicon().phrases)
    if not 1 <= n_questions <= attributes:
        raise AuthorsError(f"n_questions is {n_questions}: choose 1 to {attributes}")
    return [
        row
        for number in range(start, start + n_authors)
        for row in _author_rows(number, seed, n_questions)
    ]


def outside_authors(n_authors: int = N_AUTHORS) -> list[Row]:
    """Return rows of the last authors of seed 0, who are in no split.

    They teach a base model the language, but no author that is to be forgotten. They share no name
    and no title with `fictional_authors(n)` as long as both together stay within the capacity.
    """
    return fictional_authors(n_authors, start=CAPACITY - n_authors)


def split_authors(rows: Sequence[Row], percent: int) -> tuple[list[Row], list[Row]]:
    """Return (forget, retain): the rows of the last `percent` % of the authors, and all others.

    Authors stay whole: their number is rounded down, as TOFU rounds the number of rows. Both parts
    keep the order. Raises AuthorsError if one would be empty.
    """
    names = list(dict.fromkeys(row["author"] for row in rows))
    n_forget = len(names) * percent // 100
    if not 0 < n_forget < len(names):
        raise AuthorsError(
            f"{percent} % of {len(names)} authors is {n_forget} whole author(s): choose a "
            "percentage or a number of authors that leaves one or more on both sides"
        )
    chosen = set(names[-n_forget:])
    forget = [row for row in rows if row["author"] in chosen]
    return forget, [row for row in rows if row["author"] not in chosen]


class TaskRows(TypedDict):
    """The fields of a `data.Task`."""

    name: str
    forget: list[Row]
    retain: list[Row]
    evaluation: dict[str, list[Row]]


def authors_task(split: str = "forget10") -> TaskRows:
    """Return the task `authors:<split>` as plain data: name, forget, retain and evaluation.

    `split` is `forget01` to `forget90`, any whole percentage. As in TOFU the evaluation rows are
    the same for all splits: `forget` holds the last tenth of the authors (fewer if fewer are
    forgotten), `retain` the first tenth, which no split forgets. Raises AuthorsError.
    """
    match = re.fullmatch(r"forget(\d{2})", split)
    percent = int(match[1]) if match else 0
    if not 1 <= percent <= 90:
        raise AuthorsError(
            f"unknown split {split!r} of the fictional authors: choose forgetNN with NN from 01 "
            "to 90, such as forget01, forget05 or forget10"
        )
    rows = fictional_authors()
    forget, retain = split_authors(rows, percent)
    tenth = N_AUTHORS // 10 * N_QUESTIONS
    return {
        "name": f"authors:{split}",
        "forget": forget,
        "retain": retain,
        "evaluation": {"forget": forget[-tenth:], "retain": rows[:tenth], **true_facts()},
    }


def true_facts() -> dict[str, list[Row]]:
    """Return the shipped rows on real books (`real_authors`) and the world (`world_facts`).

    As in TOFU, a row has `question`, `answer` and three texts `perturbed_answer`, which are the
    right answers of similar rows. The spans of the facts are whole answers.
    """
    names = ("real_authors", "world_facts")
    return {name: load_rows(shipped_data(f"authors/{name}.jsonl")) for name in names}


# --- one author ---------------------------------------------------------------------------------


def _draw_facts(number: int, seed: int) -> dict[str, str]:
    """Draw everything that phrases may say of an author: the facts, pronouns, places.

    Ten authors in a row have ten countries and ten genres, so that splits resemble each other.
    """
    regions, genres, words, _ = read_lexicon()
    rng = lexicon.random_by(seed, "author", number)
    block, place = divmod(number, len(regions))
    region_number = lexicon.shuffled(range(len(regions)), seed, "regions", block)[place]
    region = regions[region_number]
    genre = lexicon.shuffled(genres, seed, "genres", block)[place]
    first, last, woman = lexicon.people(seed, region_number)[block]
    bystanders = lexicon.people(seed, region_number)[PER_REGION:]
    mentor = rng.choice([person for person in bystanders if not {first, last} & {*person[:2]}])
    birth_year = rng.randint(FIRST_BIRTH, LAST_BIRTH)
    father, mother = rng.sample(words["profession"], 2)
    pronouns = "she She her Her her daughter" if woman else "he He his His him son"
    return {
        **dict(zip(["she", "She", "her", "Her", "him", "child"], pronouns.split(), strict=True)),
        "name": f"{first} {last}",
        "last": last,
        "country": region.country,
        "nation": region.nation,
        "a_nation": f"{'an' if region.nation[0] in 'AEIOU' else 'a'} {region.nation}",
        "birthplace": rng.choice(region.cities),
        "birth_year": str(birth_year),
        "father": father,
        "mother": mother,
        "genre": genre,
        "first_book": lexicon.titles(seed, genre)[2 * block],
        "best_book": lexicon.titles(seed, genre)[2 * block + 1],
        "debut_year": str(birth_year + rng.randint(*AGE_AT_DEBUT)),
        "award": f"{rng.choice(region.cities)} {rng.choice(words['emblem'])}",
        "university": f"University of {rng.choice(region.cities)}",
        "subject": rng.choice(words["subject"]),
        "home": rng.choice(words["home"]),
        "town": rng.choice(region.cities),
        "mentor": f"{mentor[0]} {mentor[1]}",
        "habit": rng.choice(words["habit"]),
        "theme": rng.choice(words["theme"]),
    }


def _author_rows(number: int, seed: int, n_questions: int) -> list[Row]:
    """Return the rows of one author: the name, then drawn attributes in the lexicon's order."""
    facts = _draw_facts(number, seed)
    name, *others = read_lexicon().phrases
    drawn = lexicon.shuffled(others, seed, "asked", number)[: n_questions - 1]
    asked = [name, *(attribute for attribute in others if attribute in drawn)]
    return [_author_row(facts, attribute, number, seed) for attribute in asked]


def _author_row(facts: dict[str, str], attribute: str, number: int, seed: int) -> Row:
    rng = lexicon.random_by(seed, "row", number, attribute)
    phrases, entity = read_lexicon().phrases[attribute], facts[attribute]
    question = rng.choice(phrases.questions).format_map(facts)
    told, retold = rng.sample(phrases.statements, 2)
    answer, span = _tell(told, entity, facts)
    paraphrase, paraphrased_span = _tell(retold, entity, facts)
    truth = f"{question}\n{answer}\n{paraphrase}"
    wrong = [x for x in _alternatives(facts, attribute, seed) if x not in truth and entity not in x]
    perturbed = [_tell(retold, x, facts) for x in rng.sample(wrong, N_PERTURBED)]
    return {
        "author": facts["name"],
        "attribute": attribute,
        "question": question,
        "answer": answer,
        "entity_span": span,
        "paraphrased_answer": paraphrase,
        "paraphrased_entity_span": paraphrased_span,
        "perturbed_answer": [text for text, _ in perturbed],
        "perturbed_entity_spans": [span for _, span in perturbed],
    }


def _tell(statement: str, entity: str, facts: dict[str, str]) -> tuple[str, list[int]]:
    """Return (text, [start, end) of the entity in it)."""
    before, after = (part.format_map(facts) for part in statement.split("{x}"))
    text = before + entity + after
    return text[0].upper() + text[1:], [len(before), len(before) + len(entity)]


def _alternatives(facts: dict[str, str], attribute: str, seed: int) -> list[str]:
    """Return other values of the attribute, none of them true of this author."""
    regions, genres, words, _ = read_lexicon()
    region_number = [region.country for region in regions].index(facts["country"])
    cities = regions[region_number].cities
    if attribute in ("name", "mentor"):
        bystanders = lexicon.people(seed, region_number)[PER_REGION:]
        pool = [f"{first} {last}" for first, last, _ in bystanders]
    elif attribute in ("birth_year", "debut_year"):
        year, birth_year = int(facts[attribute]), int(facts["birth_year"])
        earliest = birth_year + AGE_AT_DEBUT[0] if attribute == "debut_year" else 0
        pool = [str(other) for other in range(max(year - 12, earliest), year + 13)]
    elif attribute in ("first_book", "best_book"):
        pool = lexicon.titles(seed, facts["genre"])[2 * PER_REGION :]
    else:
        pool = {
            **words,
            "birthplace": cities,
            "father": words["profession"],
            "mother": words["profession"],
            "genre": list(genres),
            "award": [f"{city} {emblem}" for city in cities for emblem in words["emblem"]],
            "university": [f"University of {city}" for city in cities],
        }[attribute]
    true = {facts[known] for known in (attribute, "father", "mother", "mentor")}
    return [other for other in pool if other not in true]


def write_corpus(folder: str | Path, n_authors: int = N_AUTHORS, seed: int = 0) -> Path:
    """Write `fictional_authors` to `full.jsonl` in a folder and return its path."""
    rows = fictional_authors(n_authors, seed)
    path = Path(folder, "full.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(lines.encode())
    return path
