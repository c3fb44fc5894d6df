"""Readings on disk, one file each, so that an audit resumes where it was interrupted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from npo_kit.audit.bench import Reading
from npo_kit.errors import KitError
from npo_kit.records.files import SCHEMA, Json, atomic_write, dumps, parse, read_bytes

HEADER = "audit.json"


class Store:
    """A folder of readings by model and card. All are of one bench, which `about` describes.

    Raises KitError where the folder holds an audit of another bench.
    """

    def __init__(self, folder: str | Path, about: Json):
        self.folder = Path(folder)
        header = self.folder / HEADER
        if header.exists():
            known = parse(read_bytes(header), header)
            odd = [name for name in about if known.get(name) != about[name]]
            if odd:
                raise KitError(
                    f"{self.folder} holds an audit whose {odd[0]} is {known.get(odd[0])!r}, not "
                    f"{about[odd[0]]!r}: choose another folder"
                )
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise KitError(f"{folder} cannot be written ({error}): choose another") from error
        atomic_write(header, dumps({"schema": SCHEMA, **about}))

    def get(self, model: str, card: str) -> Reading | None:
        """Return a reading, or None if there is none."""
        path = self._path(model, card)
        if not path.exists():
            return None
        record = parse(read_bytes(path), path)
        return Reading(record["value"], record["rows"], record["detail"])

    def put(self, model: str, card: str, reading: Reading) -> None:
        """Keep a reading."""
        path = self._path(model, card)
        path.parent.mkdir(exist_ok=True)
        atomic_write(path, dumps(asdict(reading)))

    def _path(self, model: str, card: str) -> Path:
        return self.folder / model / f"{card}.json"
