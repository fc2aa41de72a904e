"""How long a test waits for what must happen: long, for a slow machine that does other things is no finding, and a test that
passes waits no longer than it takes. What must happen *soon* needs a cause to tell it from late, not a short deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

DEADLINE_S = 90.0


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Poll until `condition` gives something true; the test fails with `what` after the deadline."""
    end = time.monotonic() + deadline_s
    while not (result := condition()):
        assert time.monotonic() < end, f"not within {deadline_s:.0f} s: {what}"
        time.sleep(0.02)
    return result
