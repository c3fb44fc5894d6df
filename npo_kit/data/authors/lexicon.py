"""The words and phrases about the fictional authors, read from the shipped `data/authors/`."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any, NamedTuple

from npo_kit.data.shipped import shipped_data

PER_REGION = 600  # authors of a region, and of a genre, for which names and titles suffice
BYSTANDERS = 12  # people of a region who are no authors: mentors and wrong names
UNWRITTEN = 80  # titles of a genre that no author wrote: wrong titles


class Region(NamedTuple):
    """A country, and the names of its cities and people."""

    country: str
    nation: str  # the adjective: "a Norwegian author"
    cities: list[str]
    women: list[str]  # first names
    men: list[str]
    stems: list[str]  # a surname is a stem and an ending
    endings: list[str]


class Phrases(NamedTuple):
    """The questions about one attribute, and the statements, each of which answers all of them.

    `{x}` stands for the fact, which no question holds. `{she}`, `{her}` (of her) and `{him}` (to
    her) stand for any author's pronouns, `{child}` for daughter or son, `{last}` for the surname.
    """

    questions: list[str]
    statements: list[str]


class Lexicon(NamedTuple):
    """Everything that authors are made of."""

    regions: list[Region]
    genres: dict[str, list[str]]  # genre -> the nouns of its titles
    words: dict[str, list[str]]  # by kind, such as profession or habit
    phrases: dict[str, Phrases]  # by attribute


@cache
def read_lexicon() -> Lexicon:
    """Read `words.json` and `phrases.json`."""
    words, phrases = (
        json.loads(shipped_data(f"authors/{name}.json").read_text(encoding="utf-8"))
        for name in ("words", "phrases")
    )
    return Lexicon(
        [Region(**region) for region in words["regions"]],
        words["genres"],
        words["words"],
        {attribute: Phrases(**texts) for attribute, texts in phrases.items()},
    )


def random_by(*key: object) -> random.Random:
    """Return a generator seeded by text, the same in every process and Python version."""
    return random.Random(" ".join(map(str, ("npo_kit authors", *key))))


def shuffled(items: Iterable[Any], *key: object) -> list[Any]:
    """Return the items in an order that the key decides."""
    items = list(items)
    random_by(*key).shuffle(items)
    return items


@lru_cache(maxsize=64)
def people(seed: int, region: int) -> list[tuple[str, str, bool]]:
    """Return (first name, surname, is a woman) of a region's authors, then of its bystanders."""
    place = read_lexicon().regions[region]
    first_names = [(name, True) for name in place.women] + [(name, False) for name in place.men]
    surnames = [stem + end for stem in place.stems for end in place.endings]
    all_of_them = [(first, last, woman) for first, woman in first_names for last in surnames]
    return shuffled(all_of_them, seed, "people", place.country)[: PER_REGION + BYSTANDERS]


@lru_cache(maxsize=64)
def titles(seed: int, genre: str) -> list[str]:
    """Return a genre's titles: two for each of its authors, then some that nobody wrote."""
    nouns, words = read_lexicon().genres[genre], read_lexicon().words
    described = [f"The {adjective} {noun}" for adjective in words["adjective"] for noun in nouns]
    short = described + [f"The {noun} {tail}" for noun in nouns for tail in words["tail"]]
    long = [
        f"{title} {tail}"
        for title in described
        for tail in words["tail"]
        if not {*title.split()} & {*tail.split()}  # not The Winter Otter in Winter
    ]
    n_long = 2 * PER_REGION + UNWRITTEN - len(short)
    long = random_by(seed, "long titles", genre).sample(long, n_long)
    return shuffled(short + long, seed, "titles", genre)
