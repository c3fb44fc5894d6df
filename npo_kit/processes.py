"""Work in processes of one thread each, so that results do not depend on how many run at once."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Count the CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def launched() -> tuple[int, int]:
    """Return this process's number among those that a launcher started, and their count.

    `torchrun` and `accelerate launch` set them in the environment; (0, 1) without a launcher.
    """
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], processes: int | None = None
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, function(item)) in order of completion, from up to one process per core.

    `processes` sets another limit. Each process has one torch thread and prints nothing. `function`
    must be importable, items and results picklable. The first exception of a call is raised here,
    and calls that have not begun are dropped.
    """
    workers = max(1, min(processes or cores(), len(items)))
    pool = start_workers(workers)
    try:
        waiting = {pool.submit(function, item): item for item in items}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def start_workers(workers: int = 1) -> ProcessPoolExecutor:
    """Start processes of one thread each; one process takes one call after the other."""
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=_settle)


def _settle() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for as long as the process lives
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()


def _end_with_parent() -> None:
    """Leave when the process that started this one is gone, killed too: nobody else would ask."""
    parent = parent_process()
    assert parent is not None  # this is a worker
    parent.join()
    os._exit(1)
