"""A linear relation that most of the samples follow, whatever the others do: least trimmed squares.

y ≈ b₀ + Σ bⱼ xⱼ is fitted to the h = ⌊(n + p + 1) / 2⌋ samples that it leaves the smallest squares (P. J. Rousseeuw, J. Am.
Stat. Assoc. 79, 1984; p coefficients), searched from `STARTS` fits of p samples by `STEPS` concentration steps each (P. J.
Rousseeuw, K. Van Driessen, Data Min. Knowl. Discov. 12, 2006), and then fitted `REFITS` times by ordinary least squares to
the samples within 2.5 of the scale found before. Almost half of the samples may be anything, in x as well as in y. The starts
are a fixed sequence: the same samples give the same relation.
"""

from __future__ import annotations

from functools import cache
from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from citynet.batch import F64, I64

STARTS = 120
STEPS = 6
REFITS = 4
CUT = 2.5
FAR = 1e6
ROUNDING = 1e-18
"""Squared residuals below are none, in units of the spread of y."""
RIDGE = 1e-10
"""Share of the mean square that keeps collinear or constant columns solvable: their coefficients become small, not wild."""
_NORMAL = NormalDist()


class Relation(NamedTuple):
    """`coefficient` float64 (p,), the constant first; `sigma` of the residuals of normal samples, corrected for the cut;
    `followed`: share of the samples within it."""

    coefficient: F64
    sigma: float
    followed: float


def fit(x: F64, y: F64) -> Relation:
    """Fit y (n,) by x (n, p − 1).

    Where most of the samples lie exactly on the relation, sigma is 0. Values further from the median than `FAR` median
    deviations count as that far: their squares may not exist.
    """
    p = x.shape[1] + 1
    together = np.column_stack([x, y])
    with np.errstate(over="ignore"):
        middle = np.median(together, axis=0)
        away = together - middle
        size = np.median(np.abs(away), axis=0)
        size = np.where(size > 0, size, np.abs(away).max(axis=0))
        size = np.where(size > 0, size, 1.0)
        scaled = np.clip(away / size, -FAR, FAR)
        columns = np.column_stack([np.ones(len(y)), scaled[:, :-1]])
        found, sigma, followed = _scaled(columns, scaled[:, -1], p)
        slopes = found[1:] * size[-1] / size[:-1]
        constant = middle[-1] + found[0] * size[-1] - float((slopes * middle[:-1]).sum())
    return Relation(np.concatenate([[constant], slopes]), sigma * float(size[-1]), followed)


def _scaled(columns: F64, y: F64, p: int) -> tuple[F64, float, float]:
    count = len(y)
    kept = (count + p + 1) // 2
    chosen = np.zeros((STARTS, count))
    chosen[np.arange(STARTS)[:, None], _starts(count, p)] = 1.0
    for _ in range(STEPS):
        squares = _squares(columns, y, _solved(columns, y, chosen))
        nearest = np.argpartition(squares, kept - 1, axis=1)[:, :kept]
        chosen = np.zeros((STARTS, count))
        np.put_along_axis(chosen, nearest, 1.0, axis=1)
    found = _solved(columns, y, chosen)
    trimmed = (_squares(columns, y, found) * chosen).sum(axis=1)
    best = int(np.argmin(trimmed))
    last: F64 = found[best]
    share = 1.0
    sigma = sqrt(float(trimmed[best]) / kept) * _consistency(kept / count)
    for _ in range(REFITS):
        within = _squares(columns, y, last[None, :])[0] <= max((CUT * sigma) ** 2, ROUNDING)
        last = _solved(columns, y, within[None, :].astype(np.float64))[0]
        rest = float((_squares(columns, y, last[None, :])[0] * within).sum())
        sigma = sqrt(rest / max(int(within.sum()) - p, 1)) * _consistency(2 * _NORMAL.cdf(CUT) - 1)
        share = float(within.mean())
    return last, sigma if sigma > sqrt(ROUNDING) else 0.0, share


@cache
def _starts(count: int, p: int) -> I64:
    """`STARTS` rows of p samples each, from a fixed linear congruential sequence."""
    found, number = np.empty(STARTS * p, np.int64), 12_345
    for n in range(STARTS * p):
        number = (1_103_515_245 * number + 12_345) % (1 << 31)
        found[n] = (number >> 8) % count
    return found.reshape(STARTS, p)


def _solved(columns: F64, y: F64, weight: F64) -> F64:
    """Weighted least squares, one row a row of `weight` (m, n): (m, p)."""
    count, p = columns.shape
    products = (columns[:, :, None] * columns[:, None, :]).reshape(count, p * p)
    ridge = RIDGE * np.maximum(weight.sum(axis=1), 1.0)
    square = (weight @ products).reshape(-1, p, p) + np.eye(p) * ridge[:, None, None]
    right = weight @ (columns * y[:, None])
    found: F64 = np.linalg.solve(square, right[:, :, None])[:, :, 0]
    return found


def _squares(columns: F64, y: F64, coefficient: F64) -> F64:
    """Squared residuals: (m, n)."""
    away: F64 = y[None, :] - coefficient @ columns.T
    return away * away


def _consistency(share: float) -> float:
    """What makes the root mean square of the innermost `share` of normal values their σ."""
    if share >= 1:
        return 1.0
    edge = _NORMAL.inv_cdf((1 + share) / 2)
    return 1 / sqrt(1 - 2 * edge * _NORMAL.pdf(edge) / share)
