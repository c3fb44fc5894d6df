"""Checkpoints of a training run: written whole or not at all, read back only when unaltered.

A checkpoint is a folder `000012` named after its step. It holds the state that a step changes: the
trained parameters and the optimizer's state as safetensors (in parts of some gigabytes), and
`state.json` with the rest and the SHA-256 of every file. All other state (frozen weights, the
reference's log-probs, the order of rows) is computed again from the same model and seed.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from npo_kit.models.sizes import readable_bytes
from npo_kit.records.files import (
    SCHEMA,
    Json,
    RunError,
    atomic_write,
    dumps,
    read_as,
    read_bytes,
    told,
)
from npo_kit.records.folder import drop_checkpoints
from npo_kit.records.lock import owned

PART_BYTES = 2 * 10**9  # of tensors in one file, unless a single tensor is larger
SAMPLE = 1024  # numbers of each tensor in a fingerprint

_NAME = re.compile(r"[0-9]{6}|[1-9][0-9]{6,}")
_TEMPORARY = re.compile(r"\.[0-9]+\.[0-9a-f]{8}\.tmp")


@dataclass(frozen=True)
class State:
    """The content of a checkpoint's `state.json`."""

    step: int
    files: dict[str, str]  # name -> SHA-256
    lrs: list[float]  # of the optimizer's groups
    scheduler: Json
    scaler: Json | None  # fp16's loss scale
    random: dict[str, str]  # states of torch's generators by kind of device, in hex digits
    sha256: str = ""  # of all the rest


@dataclass
class Checkpoints:
    """A run's checkpoints: their folder, how often one is written, and where the run resumes.

    The disk never holds more than two: the older one is removed before a new one is written.
    """

    folder: Path  # which holds nothing else
    every: float = 1.0  # epochs between two; there is also one after the last step
    start: int = 0  # the step to go on from, which has a whole checkpoint; 0: the beginning
    evaluated: bool = False  # whether the evaluation at `start` is recorded

    def __post_init__(self):
        self.folder = Path(self.folder)
        if not self.every > 0:
            raise RunError(f"checkpoint_every must be above 0 epochs, it is {self.every}")
        self._last = self.start

    def save(self, step: int, training: Training) -> None:
        """Write a checkpoint and keep the previous one; RunError if it cannot be written."""
        path = checkpoint_path(self.folder, step)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        with told(path, "written"):
            self._make_room(training.size())
            try:
                temporary.mkdir()
                training.write(temporary, step)
                _sync(temporary)
                temporary.rename(path)
                _sync(self.folder)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        self._last = step

    def restore(self, training: Training) -> None:
        """Put `training` back where it was at `start`, unless that is the beginning."""
        if self.start:
            training.read(checkpoint_path(self.folder, self.start))

    def _make_room(self, needed: int) -> None:
        """Remove all but the last checkpoint, and what is left of checkpoints of killed runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            own = _NAME.fullmatch(path.name) or _TEMPORARY.fullmatch(path.name)
            if own and path != checkpoint_path(self.folder, self._last):
                shutil.rmtree(path)
        refuse_full(self.folder, needed, "a checkpoint", "or train without checkpoints")


@dataclass
class Training:
    """The state that a step changes: trained weights, optimizer, schedule, fp16's loss scale.

    It includes torch's random generators: the kit does not use them in training, but a user's
    objective may.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler | None = None

    def __post_init__(self):
        self._trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def size(self) -> int:
        """Count the bytes of the weights and of what the optimizer keeps of each: at least two."""
        kept = {key for of in self.optimizer.state.values() for key in of} - {"step"}
        return (1 + max(2, len(kept))) * sum(p.nbytes for p in self._trained.values())

    def write(self, folder: Path, step: int) -> None:
        """Write everything to `folder`, `state.json` last."""
        weights = ((name, parameter.detach()) for name, parameter in self._trained.items())
        moments = (
            (f"{key} {name}", value)
            for name, parameter in self._trained.items()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        )
        files = [*_write_parts(folder, "weights", weights)]
        files += _write_parts(folder, "optimizer", moments)
        random = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self._device)
        state = State(
            step=step,
            files={path.name: _sha256(path) for path in files},
            lrs=[group["lr"] for group in self.optimizer.param_groups],
            scheduler=self.scheduler.state_dict(),
            scaler=self.scaler.state_dict() if self.scaler else None,
            random={kind: s.numpy().tobytes().hex() for kind, s in random.items()},
        )
        whole = {"schema": SCHEMA, **vars(state), "sha256": _digest(state)}
        atomic_write(folder / "state.json", dumps(whole, indent=1))

    def read(self, folder: Path) -> None:
        """Read everything from `folder`; RunError if it is not whole or of another model."""
        state = read_state(folder)
        missing = dict(self._trained)
        for name, tensor in _read_parts(folder, state.files, "weights"):
            parameter = missing.pop(name, None)
            if parameter is None or parameter.shape != tensor.shape:
                raise RunError(f"{folder} is of a model with other parameters: give the run's own")
            parameter.detach().copy_(tensor)
        if missing:
            raise RunError(f"{folder} lacks parameters of this model: give the run's own")
        self._read_optimizer(_read_parts(folder, state.files, "optimizer"), state.lrs)
        self.scheduler.load_state_dict(state.scheduler)
        if self.scaler and state.scaler is not None:
            self.scaler.load_state_dict(state.scaler)
        random = {kind: torch.tensor(list(bytes.fromhex(h))) for kind, h in state.random.items()}
        torch.set_rng_state(random["cpu"].byte())
        if self._device.type == "cuda" and "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"].byte(), self._device)

    def _read_optimizer(self, tensors: Iterable[tuple[str, Tensor]], lrs: list[float]) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        numbers = {id(parameter): number for number, parameter in enumerate(parameters)}
        state: dict[int, dict[str, Tensor]] = {}
        for both, tensor in tensors:
            key, _, name = both.partition(" ")
            state.setdefault(numbers[id(self._trained[name])], {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        groups = [group | {"lr": lr} for group, lr in zip(groups, lrs, strict=True)]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    @property
    def _device(self) -> torch.device:
        return next(iter(self._trained.values())).device


def remove_checkpoints(run_folder: Path) -> None:
    """Remove checkpoints that a run killed at its very end left; RunError if it lives."""
    with owned(run_folder):
        drop_checkpoints(run_folder)


def refuse_full(folder: Path, needed: int, what: str, otherwise: str) -> None:
    """Raise RunError if the disk of `folder` has fewer than `needed` bytes left for `what`."""
    with told(folder, "read"):
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"{what} takes {readable_bytes(needed)} and {folder} has {readable_bytes(free)} left: "
            f"make room, {otherwise}"
        )


# --- a checkpoint's folder ----------------------------------------------------------------------


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the folder of the checkpoint at `step`."""
    return folder / f"{step:06d}"


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in `folder`, in order, whole or not."""
    with told(folder, "read"):
        there = list(folder.iterdir()) if folder.is_dir() else []
    return sorted(int(path.name) for path in there if _NAME.fullmatch(path.name))


def read_state(folder: Path) -> State:
    """Read `state.json`; RunError where a file is missing, truncated or altered."""
    path = folder / "state.json"
    state = read_as(State, read_bytes(path), path)
    if state.sha256 != _digest(state) or state.step != int(folder.name):
        raise RunError(f"{path} is not as it was written: remove this checkpoint")
    for name, sha256 in state.files.items():
        if not (folder / name).is_file() or _sha256(folder / name) != sha256:
            raise RunError(f"{folder / name} is missing or altered: remove this checkpoint")
    return state


def fingerprint_weights(model: nn.Module) -> str:
    """Return 16 hex digits that tell models apart by names, shapes and a sample of every tensor."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}\n".encode())
        flat = parameter.detach().reshape(-1)
        sample = flat[:: max(1, len(flat) // SAMPLE)].contiguous().cpu()
        digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _write_parts(folder: Path, kind: str, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[Path]:
    """Write tensors to files of at most PART_BYTES, with one part in CPU memory at a time."""
    parts: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors:
        if parts[-1] and sum(t.nbytes for t in parts[-1].values()) + tensor.nbytes > PART_BYTES:
            parts.append({})
        parts[-1][name] = tensor
    for number, part in enumerate(parts):
        path = folder / f"{kind}-{number:03d}.safetensors"
        try:
            save_file({name: tensor.contiguous() for name, tensor in part.items()}, path)
        except SafetensorError as error:  # also for a full disk
            raise RunError(
                f"{path} could not be written ({error}): check disk and rights"
            ) from error
        _sync(path)
        yield path


def _read_parts(folder: Path, files: Iterable[str], kind: str) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of a kind, in memory of its own so that the files may go."""
    for name in sorted(n for n in files if n.startswith(f"{kind}-")):
        with safe_open(folder / name, "pt") as file:
            for key in file.keys():  # noqa: SIM118  it is no dict
                yield key, file.get_tensor(key).clone()


def _sync(path: Path) -> None:
    """Make the system write a file, or a folder's list of files, to the disk."""
    folder = path.is_dir()
    if folder and os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with told(path, "read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(state: State) -> str:
    rest = {name: value for name, value in vars(state).items() if name != "sha256"}
    return hashlib.sha256(dumps({"schema": SCHEMA, **rest}, sort_keys=True)).hexdigest()
