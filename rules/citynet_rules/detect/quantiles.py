"""Exact quantiles of the last N values of a stream."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

import numpy as np

from citynet.batch import F64


class QuantileRing:
    """The newest `capacity` values, kept in order of age and in order of size.

    A value costs one binary search and one move of at most 8 × `capacity` bytes; a quantile costs one index.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._by_age: deque[float] = deque()
        self._by_size: list[float] = []

    def __len__(self) -> int:
        return len(self._by_size)

    def quantile(self, share: float) -> float:
        """The value at the nearest rank; `share` in 0..1. Needs at least one value."""
        return self._by_size[int(share * (len(self._by_size) - 1) + 0.5)]

    def push(self, value: float) -> None:
        """Add a finite value; the oldest gives way when the ring is full."""
        if len(self._by_age) == self._capacity:
            del self._by_size[bisect_left(self._by_size, self._by_age.popleft())]
        self._by_age.append(value)
        insort(self._by_size, value)

    def save(self) -> F64:
        """The values, oldest first: the whole state."""
        return np.array(self._by_age, np.float64)

    def load(self, values: F64) -> None:
        """Replace the state by one that `save` gave."""
        self._by_age = deque(values.tolist())
        self._by_size = sorted(self._by_age)
