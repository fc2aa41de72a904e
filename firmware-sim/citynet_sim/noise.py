"""Randomness by address: the same (seed, stream, index) gives the same numbers, in whatever order.

Numbers come from raw Philox words (numpy keeps those stable between versions; it does not promise that for
its distributions) and are shaped here by integer arithmetic, so a seed means the same city on every machine.
"""

from __future__ import annotations

import hashlib
import threading
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

_WORD = (1 << 64) - 1
# Sum of four uniform 16-bit integers: mean 4 * 65535 / 2, variance 4 * (65536^2 - 1) / 12.
_SUM_MEAN = 131_070.0
_SUM_DEVIATION = ((65_536.0**2 - 1.0) / 3.0) ** 0.5


_PAIRS, _LOW = np.uint64(0x0000_FFFF_0000_FFFF), np.uint64(0xFFFF_FFFF)
_16, _32 = np.uint64(16), np.uint64(32)
_NOTHING_BUFFERED = np.zeros(4, np.uint64)


class _Generators(threading.local):
    """A generator a thread, set to an address for every draw: making one asks the system for entropy that nobody wants."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(key=np.zeros(2, np.uint64))


_own = _Generators()


def _raw(seed: int, stream: str, index: int, count: int) -> NDArray[np.uint64]:
    digest = hashlib.blake2b(stream.encode(), digest_size=8).digest()
    key = np.array([seed & _WORD, int.from_bytes(digest, "little")], np.uint64)
    counter = np.array([0, 0, index & _WORD, 0], np.uint64)
    generator = _own.philox
    generator.state = {
        "bit_generator": "Philox", "state": {"counter": counter, "key": key}, "buffer": _NOTHING_BUFFERED,
        "buffer_pos": 4, "has_uint32": 0, "uinteger": 0,
    }  # fmt: skip
    words: NDArray[np.uint64] = generator.random_raw(count)
    return words


def uniforms(seed: int, stream: str, index: int, count: int) -> F64:
    """`count` numbers, uniform in [0, 1), of 53 bits."""
    mantissas = (_raw(seed, stream, index, count) >> np.uint64(11)).astype(np.float64)
    scaled: F64 = mantissas * 2.0**-53
    return scaled


def normals(seed: int, stream: str, index: int, count: int) -> F64:
    """`count` nearly normal numbers, mean 0, variance 1, never beyond ±3.47.

    Each is the standardised sum of four uniform 16-bit integers (Irwin-Hall of order 4). The bounded tail is
    wanted: a calm city stays calm because its noise cannot do otherwise, not because it rarely does.
    """
    words = _raw(seed, stream, index, count)
    pairs = (words & _PAIRS) + (words >> _16 & _PAIRS)  # two sums of two, side by side in a word
    shaped: F64 = (((pairs & _LOW) + (pairs >> _32)).astype(np.float64) - _SUM_MEAN) / _SUM_DEVIATION
    return shaped


def ar1(white: F64, phi: F64, first: F64) -> F64:
    """First-order autoregression x[k] = phi x[k-1] + sqrt(1 - phi^2) white[k], with x[-1] = `first`.

    `white` is (metrics, steps), `phi` and `first` are (metrics,); the result is (metrics, steps), of variance
    1 when `first` has variance 1. Computed as a scan by doubling, log2(steps) passes over the array.
    """
    x = white * np.sqrt(1.0 - phi * phi)[:, None]
    x[:, 0] += phi * first
    steps, reach, weight = x.shape[1], 1, phi.copy()
    while reach < steps:
        x[:, reach:] = x[:, reach:] + weight[:, None] * x[:, :-reach]
        weight = weight * weight
        reach *= 2
    return x


def ar1_bridge(white: F64, phi: F64, first: F64, last: F64) -> F64:
    """`ar1` conditioned to end at `last`: blocks that share their seams join without a step.

    Shapes as for `ar1`; ``result[:, -1] == last``. Conditioning adds the end's miss, weighted by the
    covariance of step k with the end over the end's variance, both given the start (the discrete
    Ornstein-Uhlenbeck bridge).
    """
    x = ar1(white, phi, first)
    steps = x.shape[1]
    k = np.arange(1, steps + 1)
    p = phi[:, None]
    weight = (p ** (steps - k) - p ** (steps + k)) / (1.0 - p ** (2 * steps))
    bridged: F64 = x + (last - x[:, -1])[:, None] * weight
    return bridged


_LATTICE = 256  # lattice points that are drawn at once


@lru_cache(maxsize=4096)
def _lattice(seed: int, stream: str, block: int) -> F64:
    points = normals(seed, stream, block, _LATTICE)
    points.flags.writeable = False
    return points


def lattice(seed: int, stream: str, index: NDArray[np.int64]) -> F64:
    """Unit-variance numbers at whole positions `index`, in whatever order they are asked for; shape of `index`."""
    blocks = index // _LATTICE
    if not index.size:
        return np.empty(0)
    first, last = int(blocks.min()), int(blocks.max())
    line = np.concatenate([_lattice(seed, stream, block) for block in range(first, last + 1)])
    found: F64 = line[index - first * _LATTICE]
    return found


def wander(seed: int, stream: str, t_s: F64, spacing_s: float) -> F64:
    """A smooth random course of mean 0 and variance 1 that forgets itself over about `spacing_s`; shape of `t_s`.

    Independent numbers stand `spacing_s` apart and are joined by a cubic blend whose weights keep the variance.
    A moment asks for its two neighbours only, so the course is a pure function of time.
    """
    place = t_s / spacing_s
    index = np.floor(place)
    u = place - index
    w = u * u * (3.0 - 2.0 * u)
    k = index.astype(np.int64)
    before, after = lattice(seed, stream, k), lattice(seed, stream, k + 1)
    course: F64 = ((1.0 - w) * before + w * after) / np.sqrt((1.0 - w) ** 2 + w**2)
    return course
