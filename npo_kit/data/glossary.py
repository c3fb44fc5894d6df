"""The shipped glossary: words of unlearning, explained once for the page and the notebooks."""

from __future__ import annotations

import tomllib
from functools import cache
from typing import NotRequired, TypedDict

from npo_kit.data.shipped import shipped_data


class Word(TypedDict):
    """A word with its explanation."""

    term: str
    says: str  # a sentence or two
    head: NotRequired[str]  # a term's name at the head of a column
    source: NotRequired[str]  # where it was defined


@cache
def read_glossary() -> dict[str, Word]:
    """Read the shipped `glossary.toml`: key -> word, in the order in which they build up."""
    text = shipped_data("glossary.toml").read_text(encoding="utf-8")
    words: dict[str, Word] = tomllib.loads(text)
    return words
