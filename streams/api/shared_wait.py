"""One blocking call on behalf of all requests that wait for it.

The rules of this file:
1. A request gets the result of a call that began after the request came, so it is as fresh as the request needs. All
   that come meanwhile share the next call: any number of requests hold one thread.
2. A failure is shared too. So while Kafka is away no request waits longer than two calls take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class SharedWait:
    """Await it for one `call` that begins from now on; raises what the call raises. Belongs to one event loop."""

    def __init__(self, call: Callable[[], None]) -> None:
        """`call` blocks, with an end to it."""
        self._call = call
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Return when a call that began after this one has returned."""
        if self._next is None:
            self._next = asyncio.create_task(self._run_after(self._running))
        await asyncio.shield(self._next)

    async def _run_after(self, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None:
            await asyncio.wait({earlier})
        self._running, self._next = self._next, None
        await asyncio.to_thread(self._call)
