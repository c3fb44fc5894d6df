"""Strict JSON records and files: written whole or not at all, read back only when whole.

NaN and the infinities are kept as `{"float": "nan"}`, `"inf"` or `"-inf"`; a dict whose only key is
`float` is wrapped once more, so that every value reads back as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import secrets
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints, is_typeddict

from npo_kit.errors import KitError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA = 1
MAX_BYTES = 2 * 10**9  # of one file, packed or unpacked; a larger one is no record of ours
Json = dict[str, Any]  # a JSON object whose keys depend on the file
Record = TypeVar("Record", bound="DataclassInstance")


class RunError(KitError):
    """A wrong folder or file of a run: one sentence says what, where and how to mend it."""


def fingerprint(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return 16 hex digits that tell lists of rows apart, whatever the order of their keys."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(dumps(row, sort_keys=True))
    return digest.hexdigest()[:16]


def atomic_write(path: str | os.PathLike, data: bytes) -> None:
    """Write a whole file or leave what was there; RunError if it cannot be written."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with told(path, "written"):
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def read_bytes(path: Path) -> bytes:
    """Read a plain file of a sensible size."""
    with told(path, "read"):
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise RunError(f"{path} is not a plain file: put the run's own file there")
        if about.st_size > MAX_BYTES:
            raise RunError(f"{path} is larger than {MAX_BYTES:,} bytes, no record is: remove it")
        return path.read_bytes()


def unpack(path: Path) -> bytes:
    """Return the content of a whole gzip file."""
    unpacker, packed = zlib.decompressobj(wbits=31), read_bytes(path)
    try:
        text = unpacker.decompress(packed, MAX_BYTES)
    except zlib.error as error:
        raise RunError(f"{path} is not a whole gzip file ({error}): copy it again") from error
    if unpacker.unconsumed_tail:
        raise RunError(f"{path} unpacks to over {MAX_BYTES:,} bytes, no record does: remove it")
    if not unpacker.eof or unpacker.unused_data:
        raise RunError(f"{path} is cut short or has more after its end: copy it again")
    return text


def _encode(value: Any) -> Any:
    """Return a value as strict JSON has it; numpy's and torch's numbers become plain ones."""
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        plain = {key: _encode(item) for key, item in value.items()}
        return {"float": plain} if plain.keys() == {"float"} else plain
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    if hasattr(value, "tolist"):
        return _encode(value.tolist())
    raise RunError(f"a run cannot keep {value!r:.60}: give text, numbers, None, lists or dicts")


# Where `_encode` may have left its mark, which somebody's JSON may spell with escapes.
_MARKED = re.compile(r'"float"|\\u00[67]')


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() != {"float"}:
        return {key: _decode(item) for key, item in value.items()}
    inner = value["float"]
    if inner in ("nan", "inf", "-inf"):
        return float(inner)
    if isinstance(inner, dict) and inner.keys() == {"float"}:
        return {"float": _decode(inner["float"])}
    raise ValueError("a float that is neither nan nor inf")


def dumps(value: Any, **options: Any) -> bytes:
    """Return a JSON text with a line end."""
    try:
        return json.dumps(_encode(value), allow_nan=False, **options).encode() + b"\n"
    except RecursionError as error:
        raise RunError("a run cannot keep what contains itself: give plain values") from error


def parse(data: bytes, where: Any) -> Json:
    """Read the JSON object in `data`; `where` it is from is said in errors."""
    try:
        text = data.decode()
        value = json.loads(text, parse_constant=_refuse_constant)
        value = _decode(value) if _MARKED.search(text) else value
    except (RecursionError, ValueError) as error:
        raise RunError(f"{where} is not a run's JSON ({error}): restore it from a copy") from error
    if not isinstance(value, dict):
        raise RunError(f"{where} is not a JSON object: restore it from a copy")
    return value


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")


def read_as(kind: type[Record], data: bytes, where: Any) -> Record:
    """Read the JSON object in `data` as the dataclass `kind`; keys that are no field are left out.

    RunError for another schema version, and where a field is of another type or, unless it has a
    default, missing.
    """
    record = parse(data, where)
    version = record.get("schema")
    if type(version) is int and version > SCHEMA:
        raise RunError(f"{where} has schema {version}, newer than {SCHEMA} here: update npo_kit")
    if type(version) is not int or version != SCHEMA:
        raise RunError(f"{where} has no schema version known here: give a file npo_kit wrote")
    needed = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]
    if missing := [name for name in needed if name not in record]:
        raise RunError(f"{where} lacks {', '.join(missing)}: restore it from a copy")
    values = {f.name: record[f.name] for f in fields(kind) if f.name in record}
    hints = get_type_hints(kind)
    for name, value in values.items():
        allowed = _json_types(hints[name])
        if type(value) not in allowed:
            names = " or ".join("None" if t is type(None) else t.__name__ for t in allowed)
            found = type(value).__name__
            raise RunError(f"{where} has {name} as {found}, not {names}: restore it from a copy")
    return kind(**values)


def _json_types(hint: Any) -> tuple[type, ...]:
    """Return the types that JSON has for a field with this annotation."""
    if isinstance(hint, UnionType):
        return tuple(kind for part in get_args(hint) for kind in _json_types(part))
    kind = dict if is_typeddict(hint) else get_origin(hint) or hint
    return (int, float) if kind is float else (kind,)


@contextlib.contextmanager
def told(path: Path, done: str) -> Iterator[None]:
    """Turn the system's errors into a sentence on what could not be `done`: "read" or "written"."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise RunError(f"{path} could not be {done} ({why}): check disk and rights") from error
