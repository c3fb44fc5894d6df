"""Work in processes of one thread each, so that results do not depend on how many run at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def launched() -> tuple[int, int]:
    """The number of this process among those that a launcher started, and how many these are.

    As `torchrun` and `accelerate launch` tell it in the environment; (0, 1) without one.
    """
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], processes: int | None = None
) -> Iterator[tuple[Item, Result]]:
    """(item, function(item)) as they come, computed in up to `processes` (default: one a core).

    Each process has one torch thread and prints nothing. `function` must be importable, items and
    results picklable. The first exception of a call is raised here; what has not begun is dropped.
    """
    workers = max(1, min(processes or cores(), len(items)))
    pool = _pool(workers)
    try:
        waiting = {pool.submit(function, item): item for item in items}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def one_worker() -> ProcessPoolExecutor:
    """A process of one thread that takes one call after the other."""
    return _pool(1)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=_settle)


def _settle() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for as long as the process lives
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()
