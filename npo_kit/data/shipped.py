"""Finds the data that travels with the kit: in the checkout's `data/`, else in the wheel."""

from pathlib import Path


def shipped_data(name: str) -> Path:
    """Path of the file or folder `name` of the shipped data; FileNotFoundError if absent."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package.parent / "data", package / "_data"):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"the kit ships no data called {name!r}: reinstall npo_kit")
