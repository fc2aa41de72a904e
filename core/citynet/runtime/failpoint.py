"""Failpoints: named places where a fault test may kill the process, to prove what a crash there costs.

``CITYNET_FAILPOINT=name`` kills the process with SIGKILL the first time it gets there, ``name:7`` the seventh time.
Unset, a failpoint is one comparison with None.
"""

from __future__ import annotations

import os
import signal

_armed, _, _count = os.environ.get("CITYNET_FAILPOINT", "").partition(":")
_name: str | None = _armed or None
_left = int(_count or 1)


def hit(name: str) -> None:
    """Die here by SIGKILL if this failpoint is armed and its count is used up."""
    global _left  # noqa: PLW0603  (process-wide by nature)
    if _name is None or name != _name:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
