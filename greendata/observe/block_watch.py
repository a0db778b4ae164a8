"""Report when the hub was blocked, and by which line of code.

A native thread takes the stack of the hub's thread while the hub is blocked. There are two such samplers:

- gevent's monitor, if it watches the hub (``GEVENT_MONITOR_THREAD_ENABLE`` and ``max_blocking_time``).
- Otherwise a thread of this module, which samples the stack when the next tick of a `LagProbe` is overdue.

    hub        tick ── tick ── blocked ........................ tick: make a Block, report it in a greenlet
    sampler                        overdue: take the stack ──►┘   (through a deque)

Neither sampler can run while a native call holds the GIL. The length of such a block is still measured, and its stack
is taken in the first moment after the call.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, time
from types import CodeType, FrameType
from typing import Any

import gevent
import gevent.events

from greendata.errors import BadArgument
from greendata.hub import native
from greendata.hub.checks import is_number
from greendata.hub.closing import Closing
from greendata.observe.lag import LEAST, MOST, LagProbe
from greendata.observe.source_location import SourceLocation, user_location

__all__ = ("Block", "BlockWatch", "watch_blocks")

THRESHOLD = 0.1  # seconds; the same default as gevent's max_blocking_time
BLOCKS = 50  # number of blocks that are kept

log = logging.getLogger("greendata.observe")

Stack = tuple[tuple[CodeType, int], ...]  # code and line number of each frame, innermost first


@dataclass(frozen=True, slots=True)
class Block:
    """One time that the hub was blocked.

    Attributes:
        at: the end of the block, in seconds since 1970.
        seconds: its length: how late the hub served a timer.
        label: the innermost line of the user's own code, as "file:line in function".
        stack: the whole stack of the hub's thread during the block, the innermost frame last.
    """

    at: float
    seconds: float
    label: str
    stack: tuple[SourceLocation, ...]

    def __str__(self) -> str:
        frames = "".join(f"\n  {location}" for location in self.stack)
        return f"the hub was blocked for {self.seconds:.3f} s in {self.label}{frames}"


class BlockWatch(Closing):
    """Watch the hub of the thread that creates it, until `close`; see `watch_blocks`.

    Attributes:
        threshold: the shortest block, in seconds, that is reported.

    Methods are for the hub's thread; `blocks` is safe from any thread.
    """

    def __init__(self, threshold: float, on_block: Callable[[Block], object]) -> None:
        self.threshold = threshold
        self._on_block = on_block
        self._seen: deque[Stack] = deque(maxlen=1)  # the sampler appends, the hub's thread pops
        self._blocks: deque[Block] = deque(maxlen=BLOCKS)  # the hub's thread writes
        self._probe = LagProbe(min(MOST, max(LEAST, threshold / 4)))
        self._is_closed = False  # the hub's thread sets it, the sampler reads it
        self._sampler_pid = 0  # the process that the sampler runs in; hub's thread only
        self._probe.on_tick(self._on_tick)
        self._probe.start()
        if self._probe.hub:  # started already; else the first tick does this, or gevent's monitor would end
            self._start_sampler()

    def blocks(self) -> tuple[Block, ...]:
        """Return the last blocks, the newest first."""
        return tuple(reversed(self._blocks.copy()))

    def close(self) -> None:
        """Stop watching. Idempotent."""
        self._is_closed = True
        self._probe.close()
        if self._on_event in gevent.events.subscribers:
            gevent.events.subscribers.remove(self._on_event)

    # -- the sampler: a thread of ours, or gevent's monitor -------------------------------------------------

    def _start_sampler(self) -> None:
        self._sampler_pid = os.getpid()
        if self._probe.hub.start_periodic_monitoring_thread() is not None:  # gevent's monitor, if it is enabled
            gevent.events.subscribers.append(self._on_event)
        else:
            native.start_thread(self._watch, ())

    def _watch(self) -> None:
        native.name_this_thread("greendata-watch")
        seen = 0.0  # the tick before the block that was sampled last
        while not self._is_closed and self._probe.hub.loop is not None:
            native.sleep(self._probe.interval)
            last_tick = self._probe.last_tick
            if last_tick != seen and monotonic() - last_tick >= self.threshold:
                seen = last_tick
                self._sample_stack()

    def _on_event(self, event: Any) -> None:
        if isinstance(event, gevent.events.EventLoopBlocked) and event.hub is self._probe.hub:
            self._sample_stack()

    def _sample_stack(self) -> None:
        """Take the stack of the hub's thread: code and line numbers, not frames, which keep locals alive."""
        frame: FrameType | None = sys._current_frames().get(self._probe.hub.thread_ident)
        found: list[tuple[CodeType, int]] = []
        while frame is not None:
            found.append((frame.f_code, frame.f_lineno or 0))
            frame = frame.f_back
        self._seen.append(tuple(found))

    # -- the hub --------------------------------------------------------------------------------------------

    def _on_tick(self, lag: float) -> None:
        if self._sampler_pid != os.getpid():  # after a fork our thread is gone; gevent restarts its monitor
            if self._on_event in gevent.events.subscribers:
                self._sampler_pid = os.getpid()
            else:
                self._start_sampler()
        seconds = lag + self._probe.interval
        if seconds < self.threshold:
            self._seen.clear()
            return
        stack = self._seen.pop() if self._seen else ()
        locations = tuple(SourceLocation(code.co_filename, line, code.co_name) for code, line in reversed(stack))
        block = Block(time(), seconds, str(user_location(locations) or "a call that kept the GIL"), locations)
        self._blocks.append(block)
        gevent.spawn(self._on_block, block)  # the callback may wait for a lock, which the hub itself must not


def watch_blocks(threshold: float = THRESHOLD, *, on_block: Callable[[Block], object] | None = None) -> BlockWatch:
    """Report each time the calling thread's hub is blocked, until the watch is closed.

    If gevent's monitor watches this hub, it takes the stacks, and only of blocks longer than its
    ``max_blocking_time``.

    Args:
        threshold: the shortest block to report, in seconds, >= 0.02.
        on_block: called with each `Block` in a greenlet of the hub; by default the block is logged as a warning with
            the logger "greendata.observe".

    Raises:
        BadArgument: *threshold* cannot be used.

    Example:
        >>> import gevent, time
        >>> seen = []
        >>> with watch_blocks(0.05, on_block=seen.append) as watch:
        ...     while not any("in <module>" in block.label for block in seen):
        ...         busy_until = time.monotonic() + 0.1
        ...         while time.monotonic() < busy_until:
        ...             pass
        ...         gevent.sleep(0.02)
        >>> seen[-1].seconds > 0.05
        True
    """
    if not is_number(threshold, 2 * LEAST):
        raise BadArgument("threshold", threshold, f"a number of seconds >= {2 * LEAST}")
    return BlockWatch(threshold, on_block or _log)


def _log(block: Block) -> None:
    log.warning("%s", block)
