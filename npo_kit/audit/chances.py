"""The chance that one of several texts leaks. Read without torch."""

from __future__ import annotations

import math


def leak_at_k(n: int, c: int, k: int) -> float:
    """Return the chance that one of k texts leaks if c of n did: 1 - C(n-c, k) / C(n, k).

    Without bias; k <= n. Source: leak@k (OptimAI-Lab/Leak-k), as pass@k.
    """
    return 1 - math.comb(n - c, k) / math.comb(n, k)
