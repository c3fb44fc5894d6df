"""Rows of unlike lengths as batches: padded, packed in lines, as many as memory takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor


def pad(sequences: Sequence[Sequence[int]], value: int, left: bool = False) -> Tensor:
    """Token lists of unlike lengths as one tensor, filled up with `value`: (B, longest)."""
    width = max(map(len, sequences))
    padding = ([value] * (width - len(sequence)) for sequence in sequences)
    return torch.tensor(
        [p + list(s) if left else list(s) + p for s, p in zip(sequences, padding, strict=True)]
    )


def length_sorted(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches of row numbers from longest to shortest: little padding, and memory peaks first."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def lines_of(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Row numbers in lines of about equal length, each as long as `tokens` or the longest row."""
    count = max(1, sum(lengths) // max(tokens, *lengths))
    lines: list[list[int]] = [[] for _ in range(count)]
    filled = [0] * count
    for (row,) in length_sorted(lengths, 1):
        emptiest = filled.index(min(filled))
        lines[emptiest].append(row)
        filled[emptiest] += lengths[row]
    return lines


def budgeted(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Row numbers, longest first, in batches of at most `budget` tokens with their padding."""
    order = length_sorted(lengths, 1)
    start = 0
    while start < len(order):
        size = max(1, budget // lengths[order[start][0]])
        yield [number for (number,) in order[start : start + size]]
        start += size


def in_halves(run: Callable[[list], list], batch: list) -> list:
    """Return what `run` gives for a batch, in halves where the whole does not fit in memory."""
    try:
        return run(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # what the failed attempt left in pieces
    half = len(batch) // 2
    return in_halves(run, batch[:half]) + in_halves(run, batch[half:])
