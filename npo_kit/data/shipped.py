"""The data that travels with the kit, found in the checkout's `data/` or else in the wheel."""

from pathlib import Path


def shipped_data(name: str) -> Path:
    """Return the path of a file or folder of the shipped data; FileNotFoundError if absent."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package.parent / "data", package / "_data"):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"the kit ships no data called {name!r}: reinstall npo_kit")
