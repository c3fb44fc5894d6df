"""Batches of rows of different lengths: padded, packed in lines, as large as memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def pad(sequences: Sequence[Sequence[int]], value: int, left: bool = False) -> Tensor:
    """Put token lists of different lengths into one tensor, padded with `value`: (B, longest)."""
    rows = [torch.tensor(sequence, dtype=torch.long) for sequence in sequences]
    return pad_sequence(rows, True, value, padding_side="left" if left else "right")


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Sort row numbers from the longest row to the shortest."""
    return sorted(range(len(lengths)), key=lambda row: -lengths[row])


def length_sorted(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Cut row numbers, longest row first, into batches: little padding, and memory peaks first."""
    order = longest_first(lengths)
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def lines_of(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Spread row numbers over lines of about equal length: `tokens`, or that of the longest row."""
    count = max(1, sum(lengths) // max(tokens, *lengths))
    lines: list[list[int]] = [[] for _ in range(count)]
    filled = [0] * count
    for row in longest_first(lengths):
        emptiest = filled.index(min(filled))
        lines[emptiest].append(row)
        filled[emptiest] += lengths[row]
    return lines


def budgeted(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Yield row numbers, longest first, in batches of at most `budget` tokens with padding."""
    order = longest_first(lengths)
    while order:
        size = max(1, budget // lengths[order[0]])
        yield order[:size]
        order = order[size:]


def in_halves(run: Callable[[list], list], batch: list) -> list:
    """Run a batch, in halves where the whole does not fit in memory."""
    try:
        return run(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # frees the fragments that the failed attempt left
    half = len(batch) // 2
    return in_halves(run, batch[:half]) + in_halves(run, batch[half:])
