"""Rows as people have them: files of many formats, saved data sets, the hub, objects in memory."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from npo_kit.data.parsing import DataError, Item, numbered, of_frame, read_json, read_table


@dataclass
class Source:
    """The rows of a source and what had to be guessed to read them."""

    name: str
    items: list[Item]
    header: list[str] | None = None  # the columns that a table names
    guessed: list[str] = field(default_factory=list)  # such as: cp1252 text
    whole: bool = False  # a text file, which is one passage
    in_memory: bool = False  # an object, which no command line names


READABLE = (
    "a file of JSON lines, JSON, CSV, TSV or Parquet (.gz too), a text file (.txt) that is one "
    "passage, or a saved data set's folder"
)
_TABLES = (".csv", ".tsv", ".tab")
_PARQUET = (".parquet", ".pq")
_FILES = (".jsonl", ".json", ".gz", ".txt", *_TABLES, *_PARQUET)
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+){0,2}")  # owner/name:configuration:split


def read_source(source: Any) -> Source:
    """Read the rows of a path, a hub name, a list, a pandas DataFrame or a `datasets.Dataset`.

    Raises DataError if it cannot be read at all; what is wrong with single rows is in the items.
    """
    if isinstance(source, str | Path):
        return _read_path(source)
    if isinstance(source, Sequence):
        return Source("the rows", numbered(source), in_memory=True)
    import datasets
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        header = list(map(str, source.columns))
        return Source("the DataFrame", numbered(of_frame(source)), header, in_memory=True)
    if isinstance(source, datasets.Dataset):
        rows, header = source.to_list(), source.column_names
        return Source("the Dataset", numbered(rows), header, in_memory=True)
    raise DataError(
        f"rows cannot be of type {type(source).__name__}: give a path, a list of rows, a pandas "
        "DataFrame or a datasets.Dataset (one split)"
    )


def _read_path(source: str | Path) -> Source:
    path = Path(source).expanduser()
    if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return _read_saved(path)
    hub_like = isinstance(source, str) and _HUB_NAME.fullmatch(source)
    if hub_like and not path.exists() and path.suffix.lower() not in _FILES:
        return _read_hub(str(source))
    content, suffixes = _read_bytes(path), [s.lower() for s in path.suffixes]
    if content[:2] == b"\x1f\x8b":
        content, suffixes = _unzipped(path, content), suffixes[:-1]
    if content[:4] == b"PAR1" or (suffixes and suffixes[-1] in _PARQUET):
        return _read_parquet(path, content)
    text, encoding = _decoded(path, content)
    guessed = [f"{encoding} text"] if encoding else []
    if suffixes and suffixes[-1] in _TABLES:
        header, items = read_table(path, text)
        return Source(str(path), items, header, guessed)
    if suffixes[-1:] == [".txt"] and text.strip() and text.lstrip()[0] not in "{[":
        return Source(str(path), [Item("line 1", {"text": text})], None, guessed, whole=True)
    return Source(str(path), list(read_json(path, text)), guessed=guessed)


def read_text(path: Path, wanted: str) -> str:
    """Return the text of a file, UTF-8 or what it looks like; `wanted` describes such a file."""
    return _decoded(path, _read_bytes(path, wanted))[0]


def _read_bytes(path: Path, wanted: str = READABLE) -> bytes:
    if not path.is_file():
        raise DataError(f"no such file: {path}: give {wanted}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check its rights") from None


def _unzipped(path: Path, content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise DataError(f"{path} is no whole gzip file ({error}): copy it again") from None


def _decoded(path: Path, content: bytes) -> tuple[str, str | None]:
    """Return the text of a file, and its encoding where that had to be guessed.

    Windows' cp1252 comes first among encodings that fit equally well. Text that is mostly UTF-8 is
    broken UTF-8, not text of another encoding.
    """
    try:
        return content.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        line, reason = content.count(b"\n", 0, error.start) + 1, error.reason
    rough = content.decode("utf-8", "replace")
    broken = rough.count("\ufffd")
    if sum(not letter.isascii() for letter in rough) < 2 * broken:
        from charset_normalizer import from_bytes

        matches = from_bytes(content)
        best = matches.best()
        for match in matches:
            alike = best and match.chaos <= best.chaos and match.coherence >= best.coherence
            if alike and "cp1252" in match.could_be_from_charset:
                return content.decode("cp1252"), "cp1252"
        if best:
            return str(best), best.encoding
    raise DataError(f"{path}, line {line}: not UTF-8 text ({reason}): save it as UTF-8")


# --- data sets ----------------------------------------------------------------------------------


def _read_parquet(path: Path, content: bytes) -> Source:
    import pandas as pd

    try:
        frame = pd.read_parquet(io.BytesIO(content))
    except (ValueError, OSError) as error:  # pyarrow's errors are of these
        raise DataError(f"{path} is no whole Parquet file ({error}): copy it again") from None
    return Source(str(path), numbered(of_frame(frame)), list(map(str, frame.columns)))


def _read_saved(path: Path) -> Source:
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is no whole saved data set ({error}): save it again") from None
    return _split_of(found, None, str(path), f"give the folder of one, such as {path}/")


def _read_hub(name: str) -> Source:
    import datasets

    owner, *more = name.split(":")
    configuration = more[0] if len(more) == 2 else None
    try:
        found = datasets.load_dataset(owner, configuration)
    except Exception as error:  # the hub's clients share no family of errors
        raise DataError(
            f"{owner} is no file here, and could not be read from the hub "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}): check "
            f"the name and the network, or give {READABLE}"
        ) from error
    return _split_of(found, more[-1] if more else None, name, f"give one, such as {owner}:")


def _split_of(found: Any, split: str | None, name: str, advice: str) -> Source:
    """Return the rows of a Dataset, or of the chosen or only split of a DatasetDict."""
    import datasets

    if isinstance(found, datasets.DatasetDict):
        splits = list(found)
        split = splits[0] if split is None and len(splits) == 1 else split
        if split not in splits:
            said = f"no split {split!r}" if split else f"{len(splits)} splits"
            raise DataError(f"{name} has {said}: {advice}{splits[0]} (of {', '.join(splits)})")
        found = found[split]
    rows = [{k: v for k, v in row.items() if v is not None} for row in found.to_list()]
    return Source(name, numbered(rows), found.column_names)
