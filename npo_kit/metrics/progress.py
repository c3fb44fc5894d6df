"""The progress of long work, told by part, and bars that show it."""

from __future__ import annotations

from collections.abc import Callable

from npo_kit.models import distributed
from npo_kit.processes import launched

Progress = Callable[[str, int, int], None]  # the part, such as forget texts; rows done; their total


def counter(progress: Progress | None, what: str, total: int) -> Callable[[int], None]:
    """Return a function that is told how many more are done and reports progress of `what`.

    Other processes are taken to keep pace.
    """
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        if progress:
            progress(what, min(done * distributed.count(), total), total)

    return count


def progress_bars() -> Progress | None:
    """Return a `progress` that shows a bar for each part, in the main process.

    In a notebook the bars are the notebook's.
    """
    from tqdm.auto import tqdm

    bars: dict[str, tqdm] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = tqdm(total=total, desc=what, unit="row", leave=False)
        bars[what].update(done - bars[what].n)
        if done >= total:
            bars.pop(what).close()

    return None if launched()[0] else show
