"""The glossary: what it holds, and how a notebook shows it."""

import re
from collections import Counter

import pytest
from places import ROOT

from npo_kit.course import explain
from npo_kit.data.glossary import read_glossary
from npo_kit.errors import KitError

STATIC = ROOT / "npo_kit" / "app" / "static"


def test_every_word_is_explained_once_in_a_sentence():
    words = read_glossary()
    assert 20 <= len(words) <= 60
    assert max(Counter(word["term"] for word in words.values()).values()) == 1
    for key, word in words.items():
        assert word["says"].endswith("."), key
        assert len(word["says"]) < 300, key


def test_the_page_explains_only_words_of_the_glossary_and_names_most_of_them():
    text = "\n".join(path.read_text(encoding="utf-8") for path in STATIC.glob("*.[jh]*"))
    named = set(re.findall(r"\{(\w+)\|\w", text)) | set(re.findall(r'data-term="(\w+)"', text))
    named |= set(re.findall(r'explained\("(\w+)"', text)) | {"tells", "useful"}  # of the meters
    assert named <= set(read_glossary())
    assert len(named) >= 14


def test_a_notebook_shows_words_as_a_table_and_as_text():
    shown = explain("weight", "beta")
    says = read_glossary()["beta"]["says"]
    assert repr(shown).split("\n")[1] == f"β: {says}"
    assert shown._repr_html_().count("<tr>") == 2
    assert len(explain().words) == len(read_glossary())
    with pytest.raises(KitError, match="no word 'betta': choose among unlearning, "):
        explain("betta")
