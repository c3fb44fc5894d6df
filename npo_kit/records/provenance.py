"""What a result may depend on: versions, hardware, commit, time. No host, user or path."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_PACKAGES = ("npo_kit", "torch", "transformers", "accelerate", "tokenizers", "datasets", "peft")
_PACKAGES += ("numpy", "pandas", "scipy")


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
        "git": _git(Path(__file__).resolve().parents[2]),
        "started": now(),
    }


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


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
