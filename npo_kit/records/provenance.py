"""The conditions of a result: versions, hardware, commit, time. No host, user or path."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from npo_kit.processes import cores
from npo_kit.records.files import Json

_PACKAGES = (
    *("npo_kit", "torch", "transformers", "accelerate", "tokenizers", "datasets", "peft"),
    *("numpy", "pandas", "scipy"),
)


class Hardware(TypedDict):
    """The machine that a run was made on."""

    cpu: str
    cores: int  # that the process may use
    memory_gib: float | None
    gpus: list[str] | None  # None where torch has not been imported: it is not imported for this


class Commit(TypedDict):
    """The kit's git commit, and whether its files differed from it."""

    commit: str
    dirty: bool


class Provenance(TypedDict, total=False):
    """Everything that the results of a run may depend on, and when it started."""

    versions: dict[str, str]  # of Python and of packages, by name
    platform: str
    hardware: Hardware
    git: Commit | None  # None where the kit does not run from a git checkout
    started: str  # UTC, ISO 8601
    resumed: list[Json]  # the step after which a run went on, and with what, each time


def provenance() -> Provenance:
    """Return what the results may depend on, without host name, user name or path."""
    from importlib import metadata  # slow to import, and a reader never needs it

    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "versions": versions,
        "platform": platform.platform(),
        "hardware": _hardware(),
        "git": _git(Path(__file__).resolve().parents[2]),
        "started": now(),
    }


def _hardware() -> Hardware:
    cpu, memory, gpus = platform.processor() or platform.machine(), None, None
    if sys.platform == "darwin":
        cpu = _asked("sysctl", "-n", "machdep.cpu.brand_string") or cpu
    with contextlib.suppress(OSError):
        named = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
        cpu = named[1] if named else cpu
    with contextlib.suppress(AttributeError, OSError, ValueError):  # not on Windows
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None:
        count = cuda.device_count() if cuda.is_available() else 0
        gpus = [cuda.get_device_name(i) for i in range(count)]
    return {"cpu": cpu, "cores": cores(), "memory_gib": memory, "gpus": gpus}


def _git(root: Path) -> Commit | None:
    if not (root / ".git").exists():  # installed, perhaps inside somebody else's repository
        return None
    git = ("git", "--no-optional-locks", "-C", str(root))
    commit, changes = _asked(*git, "rev-parse", "HEAD"), _asked(*git, "status", "-s", "npo_kit")
    return None if commit is None or changes is None else {"commit": commit, "dirty": changes != ""}


def _asked(*command: str) -> str | None:
    """Return what a command prints, or None if it fails or is not there."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}  # set within a git hook
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env=own)
        return None if done.returncode else done.stdout.strip()
    return None


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
