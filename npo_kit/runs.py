"""What a run leaves on disk: written atomically, read back only when whole.

A run's folder holds `run.json`, `steps.jsonl` (a line per optimizer step), a file such as
`evals/000012.jsonl.gz` per evaluation (a header line, then a line per row) and, written by others,
`model/` and `checkpoints/`. A study is a folder of run folders and, if it has one, `study.json`.

All JSON is strict. NaN and the infinities are kept as `{"float": "nan"}`, `"inf"` or `"-inf"`; a
dict whose only key is `float` is wrapped once more, so that every value reads back as it was.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import math
import os
import platform
import re
import secrets
import shutil
import stat
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

EVALUATION_SETS = ("forget", "retain", "real_authors", "world_facts")
KINDS = ("finetune", "unlearn", "evaluate")
ENDINGS = ("finished", "collapsed", "stopped")
SCHEMA = 1
MAX_BYTES = 2 * 10**9  # of one file, packed or unpacked; a larger one is no record of ours

Row = dict[str, Any]

_FILES, _FOLDERS = ("run.json", "steps.jsonl"), ("evals", "model", "checkpoints")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
_EVALUATION = re.compile(r"[0-9]{6}\.jsonl\.gz|[1-9][0-9]{6,}\.jsonl\.gz")
_PACKAGES = ("npo_kit", "torch", "transformers", "accelerate", "tokenizers", "datasets", "peft")
_PACKAGES += ("numpy", "pandas", "scipy")

# What each kind of JSON object must have, in schema version 1: key -> the types it may be of.
_NONE = type(None)
_RUN = {"kind": (str,), "label": (str,), "method": (str, _NONE), "seed": (int, _NONE)}
_RUN |= {"config": (dict,), "task": (dict,), "provenance": (dict,), "status": (str,)}
_RUN |= {"ended": (str, _NONE), "outcome": (dict,), "counted": (int, _NONE), "evaluated": (list,)}
_HEADER = {"kind": (str,), "rows": (dict,), "step": (int,), "epoch": (int, float)}
_HEADER |= {"protocol": (str,), "max_rows": (int, _NONE), "max_new_tokens": (int, _NONE)}
_HEADER |= {"source": (str,), "notes": (dict,), "seconds": (int, float, _NONE)}
_STUDY = {"title": (str,), "runs": (list,)}


class RunError(ValueError):
    """A run's folder or file is not as it should be: in a sentence what, where and what to do."""


@dataclass(frozen=True)
class Evaluation:
    """What one model, at one step, scored on the rows of each evaluation set.

    Each row of `rows[set_name]` is a flat record. Its scores are numbers or None where the row
    lacks what they need:

    | key | unit, meaning |
    |---|---|
    | `index` | position of the row in its evaluation set |
    | `question`, `answer` | text; absent where a record must not carry the data set's text |
    | `mean_logp`, `tokens` | nats per token of the answer, end token included; token count |
    | `paraphrased_mean_logp` | the same for the paraphrased answer |
    | `perturbed_mean_logps` | list, the same for each perturbed answer |
    | `generation`, `generation_tokens` | greedy text; tokens without the end token |
    | `rouge_l_recall`, `rouge_l_f1`, `rouge_1_recall` | generation against answer, in [0, 1] |
    | `repetition_rate`, `distinct_2` | of the generation, in [0, 1] |
    | `fluency` | nats per token of the generation under the original model |
    """

    rows: dict[str, list[Row]]
    step: int = 0
    epoch: float = 0.0
    protocol: str = "all"  # "all" rows of each set, or "tofu": the first 300
    max_rows: int | None = None  # a quick look: at most so many rows of each set
    max_new_tokens: int | None = None  # of each generation; None where it is not known
    source: str = "npo_kit"  # or the format of the log it was read from
    notes: dict[str, str] = field(default_factory=dict)  # a set or score -> why it is missing
    seconds: float | None = None  # wall time the evaluation took


@dataclass(frozen=True)
class Run:
    """One run as read from its folder; its evaluations are read when they are asked for."""

    folder: Path
    label: str
    kind: str  # one of KINDS
    method: str | None
    seed: int | None
    config: dict[str, Any]
    task: dict[str, Any]
    provenance: dict[str, Any]
    status: str  # "running" (or killed: it never came to its end), or one of ENDINGS
    outcome: dict[str, Any]
    ended: str | None  # UTC, ISO 8601; the start is provenance["started"]
    steps: list[dict[str, Any]]
    truncated: str  # what is missing at the end of `steps`, as a sentence; empty if nothing is
    _evaluated: tuple[int, ...] = field(default=(), repr=False)

    def evaluation_steps(self) -> list[int]:
        """The steps that were evaluated, in order."""
        return list(self._evaluated)

    def evaluation(self, step: int) -> Evaluation:
        """The evaluation at `step`; RunError if there is none or its file is not whole."""
        if step not in self._evaluated:
            there = ", ".join(map(str, self._evaluated)) or "none"
            raise RunError(f"{self.folder} has no evaluation at step {step}: choose from {there}")
        path = _evaluation_path(self.folder, step)
        evaluation = read_evaluation(path)
        if evaluation.step != step:
            raise RunError(f"{path} is of step {evaluation.step}: give the file its own name back")
        return evaluation

    def evaluations(self) -> Iterator[Evaluation]:
        """All evaluations in the order of their steps, one in memory at a time."""
        return map(self.evaluation, self._evaluated)


class RunWriter:
    """Writes one run's folder while the run goes on; `create` makes one.

    As a context manager it marks a run that was left before `finish` as "stopped", with the reason.
    """

    def __init__(self, folder: Path, record: dict[str, Any]):
        self._folder, self._record = folder, record
        with _told(folder, "written"):
            (folder / "evals").mkdir()
            self._steps = (folder / "steps.jsonl").open("ab", buffering=0)

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike,
        *,
        kind: str,
        label: str,
        method: str | None = None,
        seed: int | None = None,
        config: Mapping[str, Any],
        task: Mapping[str, Any],
        provenance: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> RunWriter:
        """Start a run in a new or empty folder, or with `overwrite` in the place of an older run.

        Overwriting removes the older run's own files; RunError, and nothing removed, where the
        folder is no run's or holds anything else.
        """
        folder = Path(folder)
        if provenance is None:
            provenance = _provenance()
        record = {"schema": SCHEMA, "kind": kind, "label": label, "method": method, "seed": seed}
        record |= {"config": config, "task": task, "provenance": provenance}
        record |= {"status": "running", "ended": None, "outcome": {}}
        record |= {"counted": None, "evaluated": []}  # steps and evaluations written by the end
        data = _dumps(record, indent=2)
        record = _check_run(data, folder / "run.json")
        with _told(folder, "written"):
            _make_room(folder, overwrite)
        atomic_write(folder / "run.json", data)
        return cls(folder, record)

    @property
    def folder(self) -> Path:
        """The run's folder, as it was given."""
        return self._folder

    def step(self, record: Mapping[str, Any]) -> None:
        """Append one optimizer step; a write that fails leaves the lines before it as they were."""
        self._refuse_if_ended()
        line = memoryview(_dumps(record))
        with _told(self._folder / "steps.jsonl", "written"):
            whole = os.fstat(self._steps.fileno()).st_size
            try:
                while line:
                    line = line[self._steps.write(line) :]
            except BaseException:
                self._steps.truncate(whole)
                raise

    def evaluation(self, evaluation: Evaluation) -> None:
        """Write one evaluation to a file of its own, which is never written again."""
        self._refuse_if_ended()
        path = _evaluation_path(self._folder, evaluation.step)
        if os.path.lexists(path):
            raise RunError(f"{path} exists already: a step is evaluated once in a run")
        write_evaluation(path, evaluation)

    def finish(self, status: str, **outcome: Any) -> None:
        """End the run with a status of ENDINGS and what there is to say of it."""
        self._refuse_if_ended()
        if status not in ENDINGS:
            raise RunError(f"a run does not end as {status!r}: choose from {', '.join(ENDINGS)}")
        with _told(self._folder, "written"):
            os.fsync(self._steps.fileno())
            names = [path.name for path in (self._folder / "evals").iterdir()]
        end = {"status": status, "ended": _now(), "outcome": outcome}
        end["counted"] = _read_bytes(self._folder / "steps.jsonl").count(b"\n")
        end["evaluated"] = sorted(map(_step_of, filter(_EVALUATION.fullmatch, names)))
        data = _dumps(self._record | end, indent=2)
        atomic_write(self._folder / "run.json", data)
        self._steps.close()

    def _refuse_if_ended(self) -> None:
        if self._steps.closed:
            raise RunError(f"{self._folder} holds a run that has ended: start another folder")

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._steps.closed:
            return
        try:
            self.finish("stopped", reason=_reason(error))
        except RunError as problem:
            if error is None:
                raise
            error.add_note(f"The run could not be marked as stopped: {problem}")
        finally:
            self._steps.close()


def read_run(folder: str | os.PathLike) -> Run:
    """Read a run's folder, its evaluations left for later.

    A last line of `steps.jsonl` without its line end (the run was killed while writing) is dropped,
    and `truncated` says so. RunError for everything else that is not as it was written.
    """
    folder = _existing(folder)
    _refuse_links(folder)
    record = _read_record(folder)
    steps, truncated = _read_steps(folder / "steps.jsonl", record["counted"])
    evaluated = _list_evaluations(folder, record["evaluated"])
    known = {f.name: record[f.name] for f in fields(Run) if f.name in _RUN}
    return Run(folder=folder, steps=steps, truncated=truncated, _evaluated=evaluated, **known)


def read_runs(folder: str | os.PathLike) -> list[Run]:
    """The run in `folder`, or the runs of the study there: as `study.json` lists them, or by name.

    Without a `study.json`, subfolders that have no `run.json` are ignored.
    """
    folder = _existing(folder)
    if os.path.lexists(folder / "run.json"):
        return [read_run(folder)]
    path = folder / "study.json"
    if os.path.lexists(path):
        _check(study := _parse(_read_bytes(path), path), _STUDY, path)
        names = study["runs"]
        plain = all(type(n) is str and re.fullmatch(r"(?!\.\.?$)[^/\\\0]+", n) for n in names)
        if not plain or len(set(names)) < len(names):
            raise RunError(f"{path} must name each run once, by a subfolder's plain name: mend it")
    else:
        with _told(folder, "read"):
            names = sorted(p.name for p in folder.iterdir() if os.path.lexists(p / "run.json"))
    if not names:
        raise RunError(f"{folder} holds no run: give a run's folder (with a run.json) or a study's")
    return [read_run(folder / name) for name in names]


def write_evaluation(path: str | os.PathLike, evaluation: Evaluation) -> None:
    """Write an evaluation as gzipped JSON lines, atomically; equal ones give equal bytes.

    For that the sets are written in the order of EVALUATION_SETS and a row's keys by name.
    """
    names = sorted(evaluation.rows, key=_set_order)
    header = {f.name: getattr(evaluation, f.name) for f in fields(Evaluation)}
    header |= {"rows": {name: len(evaluation.rows[name]) for name in names}}
    lines = [_dumps({**header, "kind": "evaluation", "schema": SCHEMA}, sort_keys=True)]
    _check_header(lines[0], path)
    for name in names:
        for row in evaluation.rows[name]:
            if "set" in row:
                raise RunError(f"{path}: a row of {name} has a key 'set', which is ours: rename it")
            lines.append(_dumps({**row, "set": name}, sort_keys=True))
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", compresslevel=6, fileobj=packed, mtime=0) as file:
        file.write(b"".join(lines))
    atomic_write(path, packed.getvalue())


def read_evaluation(path: str | os.PathLike) -> Evaluation:
    """Read what `write_evaluation` wrote; RunError unless all of it is there."""
    first, *lines = _unpack(Path(path)).removesuffix(b"\n").split(b"\n")
    header = _check_header(first, path)
    rows: dict[str, list[Row]] = {name: [] for name in sorted(header["rows"], key=_set_order)}
    for number, line in enumerate(lines, 2):
        row = _parse(line, f"{path}, line {number},")
        name = row.pop("set", None)
        if type(name) is not str or name not in rows:
            raise RunError(f"{path}, line {number}, is of no set in the header: copy it again")
        rows[name].append(row)
    if {name: len(of_set) for name, of_set in rows.items()} != header["rows"]:
        raise RunError(f"{path} has other rows than its header counts: copy the file again")
    known = {f.name: header[f.name] for f in fields(Evaluation) if f.name in header}
    return Evaluation(**known | {"rows": rows})


def fingerprint(rows: Iterable[Mapping[str, Any]]) -> str:
    """16 hex digits that tell lists of rows apart: by content and order, not by order of keys."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(_dumps(row, sort_keys=True))
    return digest.hexdigest()[:16]


def atomic_write(path: str | os.PathLike, data: bytes) -> None:
    """Write a whole file or leave what was there; RunError if it cannot be written."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with _told(path, "written"):
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


def provenance() -> dict[str, Any]:
    """What the results may depend on: versions, hardware, the kit's git commit; and the start, UTC.

    No host name, user name or path. `gpus` is None where torch has not been imported: it is not
    imported for this. `git` is None where the kit does not run from a git checkout.
    """
    from importlib import metadata  # slow to import, and a reader never needs it

    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "versions": versions,
        "platform": platform.platform(),
        "hardware": _hardware(),
        "git": _git(Path(__file__).resolve().parent.parent),
        "started": _now(),
    }


_provenance = provenance  # where a parameter has the name


def _hardware() -> dict[str, Any]:
    cpu, memory, gpus = platform.processor() or platform.machine(), None, None
    if sys.platform == "darwin":
        cpu = _asked("sysctl", "-n", "machdep.cpu.brand_string") or cpu
    with contextlib.suppress(OSError):
        named = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
        cpu = named[1] if named else cpu
    with contextlib.suppress(AttributeError, OSError, ValueError):  # not on Windows
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    affinity = getattr(os, "sched_getaffinity", None)  # the cores this process may use
    cores = len(affinity(0)) if affinity else os.cpu_count()
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None:
        count = cuda.device_count() if cuda.is_available() else 0
        gpus = [cuda.get_device_name(i) for i in range(count)]
    return {"cpu": cpu, "cores": cores, "memory_gib": memory, "gpus": gpus}


def _git(root: Path) -> dict[str, Any] | None:
    if not (root / ".git").exists():  # installed, perhaps inside somebody else's repository
        return None
    git = ("git", "--no-optional-locks", "-C", str(root))
    commit, changes = _asked(*git, "rev-parse", "HEAD"), _asked(*git, "status", "-s", "npo_kit")
    return None if commit is None or changes is None else {"commit": commit, "dirty": changes != ""}


def _asked(*command: str) -> str | None:
    """What a command prints, or None if it fails or is not there."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}  # set within a git hook
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env=own)
        return None if done.returncode else done.stdout.strip()
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _reason(error: BaseException | None) -> str:
    if error is None:
        return "left before it was finished"
    if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
        return "interrupted"
    home = os.path.expanduser("~") + os.sep  # a run may be shown to others
    first = str(error).strip().partition("\n")[0].replace(home, f"~{os.sep}")
    return f"{type(error).__name__}: {first}".removesuffix(": ")[:300]


def _evaluation_path(folder: Path, step: int) -> Path:
    return folder / "evals" / f"{step:06d}.jsonl.gz"


def _step_of(name: str) -> int:
    return int(name.partition(".")[0])


def _set_order(name: str) -> tuple[int, str]:
    known = EVALUATION_SETS
    return known.index(name) if name in known else len(known), name


def _encode(value: Any) -> Any:
    """A value as strict JSON has it; numpy's and torch's numbers and arrays as plain ones."""
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


def _dumps(value: Any, **options: Any) -> bytes:
    """One JSON text with a line end."""
    try:
        return json.dumps(_encode(value), allow_nan=False, **options).encode() + b"\n"
    except RecursionError as error:
        raise RunError("a run cannot keep what contains itself: give plain values") from error


def _parse(data: bytes, where: Any) -> dict[str, Any]:
    try:
        value = _decode(json.loads(data.decode(), parse_constant=_refuse_constant))
    except (RecursionError, ValueError) as error:
        raise RunError(f"{where} is not a run's JSON ({error}): restore it from a copy") from error
    if not isinstance(value, dict):
        raise RunError(f"{where} is not a JSON object: restore it from a copy")
    return value


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")


def _check(record: dict[str, Any], types: dict[str, tuple[type, ...]], where: Any) -> None:
    version = record.get("schema")
    if type(version) is int and version > SCHEMA:
        raise RunError(f"{where} has schema {version}, newer than {SCHEMA} here: update npo_kit")
    if type(version) is not int or version != SCHEMA:
        raise RunError(f"{where} has no schema version known here: give a file npo_kit wrote")
    if missing := [key for key in types if key not in record]:
        raise RunError(f"{where} lacks {', '.join(missing)}: restore it from a copy")
    for key, allowed in types.items():
        if type(record[key]) not in allowed:
            names = " or ".join("None" if kind is _NONE else kind.__name__ for kind in allowed)
            found = type(record[key]).__name__
            raise RunError(f"{where} has {key} as {found}, not {names}: restore it from a copy")


def _check_run(data: bytes, path: Path) -> dict[str, Any]:
    _check(record := _parse(data, path), _RUN, path)
    for key, known in ("kind", KINDS), ("status", ("running", *ENDINGS)):
        if record[key] not in known:
            raise RunError(f"{path} has {key} {record[key]!r}: choose from {', '.join(known)}")
    numbers = record["evaluated"] + ([] if record["status"] == "running" else [record["counted"]])
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise RunError(f"{path} does not say what was written: restore it from a copy")
    return record


def _check_header(line: bytes, path: Any) -> dict[str, Any]:
    where = f"the header of {path}"
    _check(header := _parse(line, where), _HEADER, where)
    if header["kind"] != "evaluation":
        raise RunError(f"{path} holds {header['kind']!r}, no evaluation: give an evaluation's file")
    texts, counts = header["notes"].values(), [header["step"], *header["rows"].values()]
    if not all(type(t) is str for t in texts) or not all(type(n) is int and n >= 0 for n in counts):
        raise RunError(f"{where} has a step, row count or note of a wrong kind: evaluate again")
    return header


def _existing(folder: str | os.PathLike) -> Path:
    folder = Path(folder)
    with _told(folder, "read"):
        if not folder.is_dir():
            what = "is not a folder" if os.path.lexists(folder) else "does not exist"
            raise RunError(f"{folder} {what}: give a run's folder or a study's")
    return folder


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if not os.path.lexists(path):
        raise RunError(f"{folder} is not a run's folder, it has no run.json: give one that has")
    return _check_run(_read_bytes(path), path)


def _read_bytes(path: Path) -> bytes:
    with _told(path, "read"):
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise RunError(f"{path} is not a plain file: put the run's own file there")
        if about.st_size > MAX_BYTES:
            raise RunError(f"{path} is larger than {MAX_BYTES:,} bytes, no record is: remove it")
        return path.read_bytes()


def _unpack(path: Path) -> bytes:
    unpacker, packed = zlib.decompressobj(wbits=31), _read_bytes(path)
    try:
        text = unpacker.decompress(packed, MAX_BYTES)
    except zlib.error as error:
        raise RunError(f"{path} is not a whole gzip file ({error}): copy it again") from error
    if unpacker.unconsumed_tail:
        raise RunError(f"{path} unpacks to over {MAX_BYTES:,} bytes, no record does: remove it")
    if not unpacker.eof or unpacker.unused_data:
        raise RunError(f"{path} is cut short or has more after its end: copy it again")
    return text


def _read_steps(path: Path, promised: int | None) -> tuple[list[dict[str, Any]], str]:
    *lines, half = (_read_bytes(path) if os.path.lexists(path) else b"").split(b"\n")
    steps = [_parse(line, f"{path}, line {number},") for number, line in enumerate(lines, 1)]
    if promised is not None and len(steps) > promised:
        raise RunError(f"{path} has {len(steps)} lines for {promised} steps: copy the run again")
    if promised is not None and len(steps) < promised:
        return steps, f"{path} has {len(steps)} of the {promised} steps that were written"
    return steps, f"the last line of {path} is half-written and was left out" if half else ""


def _list_evaluations(folder: Path, promised: list[int]) -> tuple[int, ...]:
    found = []
    with _told(folder / "evals", "read"):
        paths = sorted((folder / "evals").iterdir()) if os.path.lexists(folder / "evals") else []
    for path in paths:
        if path.name.startswith("."):  # a temporary file of a killed run, or the system's own
            continue
        if not _EVALUATION.fullmatch(path.name):
            raise RunError(f"{path} is no evaluation's file, 000012.jsonl.gz: move it elsewhere")
        found.append(_step_of(path.name))
    for step in set(promised).difference(found):
        raise RunError(f"{_evaluation_path(folder, step)} is missing: copy the run again")
    return tuple(sorted(found))


def _refuse_links(folder: Path) -> None:
    root = os.path.realpath(folder)
    for base, folders, files in os.walk(folder):
        for path in (Path(base, name) for name in folders + files):
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                raise RunError(f"{path} links to outside of the run: put the file itself there")


def _make_room(folder: Path, overwrite: bool) -> None:
    """Leave an empty folder, or one with an older run's `run.json`, which is replaced last."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise RunError(f"{folder} is not a folder: choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    there = sorted(folder.iterdir())
    lasting = [path for path in there if not _TEMPORARY.fullmatch(path.name)]
    if lasting and not overwrite:
        raise RunError(f"{folder} is not empty: choose another folder, or overwrite the run in it")
    if lasting:
        _read_record(folder)
    foreign = [p for p in there if not _is_own(p)]
    if not foreign and (folder / "evals") in there:
        names = _EVALUATION, _TEMPORARY
        inside = (folder / "evals").iterdir()
        foreign = [p for p in inside if not any(name.fullmatch(p.name) for name in names)]
    if foreign:
        raise RunError(f"{foreign[0]} is not the run's own, so nothing was removed: move it first")
    for path in there:
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "run.json":
            path.unlink()


def _is_own(path: Path) -> bool:
    if path.name in _FOLDERS:
        return path.is_dir() and not path.is_symlink()
    named = path.name in _FILES or _TEMPORARY.fullmatch(path.name)
    return bool(named) and path.is_file() and not path.is_symlink()


@contextlib.contextmanager
def _told(path: Path, done: str) -> Iterator[None]:
    """Turn the system's errors into a sentence: what could not be "read" or "written"."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise RunError(f"{path} could not be {done} ({why}): check disk and rights") from error
