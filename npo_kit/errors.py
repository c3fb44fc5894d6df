"""The family of errors that a user can mend; their text says how."""


class KitError(ValueError):
    """Bad input: what was wrong, the value seen, what to do. The command line exits with 2."""


def without_paths(sentence: str) -> str:
    """Shorten every absolute path in a sentence to its last part, for readers elsewhere."""
    return " ".join(
        word.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
        if word.startswith(("/", "\\\\")) or word[1:3] in (":\\", ":/")
        else word
        for word in sentence.split(" ")
    )
