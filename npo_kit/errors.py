"""The family of errors that a user can mend; their text says how."""

import difflib
from collections.abc import Iterable


class KitError(ValueError):
    """Bad input: what was wrong, the value seen, what to do. The command line exits with 2."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the known word that a mistyped one is near, as words to follow it; else no words."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.75)
    return "".join(f" (did you mean {name!r}?)" for name in near)


def counted(count: int, noun: str) -> str:
    """Write how many there are of something, such as 1 row or 2,000 rows."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def without_paths(sentence: str) -> str:
    """Shorten every absolute path in a sentence to its last part, for readers elsewhere."""
    return " ".join(
        word.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
        if word.startswith(("/", "\\\\")) or word[1:3] in (":\\", ":/")
        else word
        for word in sentence.split(" ")
    )
