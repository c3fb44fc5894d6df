"""One owner of a run: a lock in the run's folder, which dies with the process that holds it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from npo_kit.records.files import RunError, told

LOCK = ".lock"  # in a run's folder while a process writes there, and after one that was killed
_PATIENCE = 1.0  # seconds; a process that only looks for an owner holds the lock for an instant
_SIGNATURE = re.compile(rb"pid ([0-9]+)\n")


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own the run in `folder`, an existing one; RunError if another process owns it.

    Only writers ask for the lock, never readers. Its file is removed while the lock is held:
    filelock grants no lock on a file without a name, so none is owned that another process removed.
    """
    from filelock import FileLock, Timeout  # slow to import, and a reader never needs it

    path = folder / LOCK
    lock = FileLock(path, timeout=_PATIENCE, thread_local=False)
    with told(path, "written"):
        try:
            lock.acquire()
        except Timeout:
            raise RunError(
                f"the run in {folder} is being written by another process{_signature(path)}: wait "
                "until it ends, stop it, or choose another folder"
            ) from None
    try:
        if isinstance(lock, FileLock):  # and not what it becomes on disks that know no locks
            with told(path, "written"), path.open("r+b", buffering=0) as file:
                file.seek(1)  # after the first byte, which Windows locks
                file.write(b"pid %d\n" % os.getpid())
        yield
    finally:
        if lock.is_locked:  # as in no process forked from this one
            with contextlib.suppress(OSError):  # Windows lets filelock remove it afterwards
                path.unlink()
        lock.release()


def refuse_owned(folder: Path) -> None:
    """RunError if a living process writes the run in `folder`; a killed one's lock is removed."""
    if os.path.lexists(folder / LOCK):
        with owned(folder):
            pass


def _signature(path: Path) -> str:
    """Return the number of the process that signed a lock, in brackets; empty if none did."""
    with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:
        file.seek(1)
        if signed := _SIGNATURE.match(file.read(32)):
            return f" (pid {int(signed[1])})"
    return ""
