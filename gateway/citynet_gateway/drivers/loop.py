"""An event loop in a thread of its own, for drivers that serve many connections.

A driver's loop is its own, so that one driver that waits (its `put` blocks while the service is behind) holds up
nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from citynet.runtime import log

FLUSH_S = 0.1

T = TypeVar("T")
logger = log.get(__name__)


class LoopThread:
    """The loop and its thread; `name` tells the driver in logs and thread lists."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop. RuntimeError before `start`."""
        if self._loop is None:
            raise RuntimeError(f"{self._name} was not started")
        return self._loop

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._surprise)
        self._thread.start()

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Have the loop call this; nothing happens if it has ended. From any thread, never blocks."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(function, *args)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop. From any other thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def stop(self, wait_s: float) -> None:
        """End the loop after what it was told to do and a moment for it to go out; wait for its thread at most this long."""
        if self._loop is not None:
            self.call(self._loop.call_later, FLUSH_S, self._loop.stop)
            self._thread.join(wait_s)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()

    def _surprise(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A mistake of ours, or of the transport: one connection ends, the others go on."""
        error = context.get("exception")
        logger.error("driver-error", driver=self._name, text=str(context.get("message")), exc_info=error)
