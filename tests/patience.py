"""How long a test waits for what must happen: long, for a slow machine that does other things is no finding, and a test that
passes waits no longer than it takes. What must happen *soon* is measured against what the machine gives us at that moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

DEADLINE_S = 90.0
_SPIN_S = 0.2
_LOOK_S, _GLANCE_S = 0.1, 0.02  # so often during `promptly` a look is taken, for so long


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Poll until `condition` gives something true; the test fails with `what` after the deadline."""
    end = time.monotonic() + deadline_s
    while not (result := condition()):
        assert time.monotonic() < end, f"not within {deadline_s:.0f} s: {what}"
        time.sleep(0.02)
    return result


def slowness(spin_s: float = _SPIN_S) -> float:
    """How many times longer work takes now than it would with a processor of our own: a busy loop's time over its share of the
    processor. 1 on a machine that does nothing else."""
    began_s, own_s = time.monotonic(), time.thread_time()
    while (spent_s := time.thread_time() - own_s) < spin_s:
        pass
    return max(1.0, (time.monotonic() - began_s) / spent_s)


@contextmanager
def promptly(limit_s: float) -> Iterator[None]:
    """What is done inside takes less than this, times the slowness before, meanwhile (on average) or afterwards."""
    slow, looks, over = slowness(), [1.0], threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_S):
            looks.append(slowness(_GLANCE_S))

    watch = threading.Thread(target=look, name="slowness")
    watch.start()
    began_s = time.monotonic()
    try:
        yield
    finally:
        took_s = time.monotonic() - began_s
        over.set()
        watch.join()
    slow = max(slow, sum(looks) / len(looks), slowness())
    assert took_s < limit_s * slow, (
        f"took {took_s:.1f} s; {limit_s} s on a machine {slow:.1f} times slower than a free one"
    )
