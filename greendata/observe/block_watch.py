"""The blame line: when the hub was silent, what it was doing.

Two witnesses. Where gevent's own monitor watches the hub (``GEVENT_MONITOR_THREAD_ENABLE``, and its
``max_blocking_time``), its events are taken. Elsewhere a native thread of ours looks at the heartbeat of a
`LagProbe`, and when that is overdue at the stack of the hub's thread. Either only appends to a deque; a greenlet
of the hub logs it when the silence is over. Neither sees anything while a native call keeps the GIL to itself: such
a silence is measured, and its stack is that of the first moment after it.
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
from greendata.observe.site import Site, culprit

__all__ = ("Block", "BlockWatch", "watch_blocks")

THRESHOLD = 0.1  # seconds, as gevent's max_blocking_time
BLOCKS = 50  # that are remembered

log = logging.getLogger("greendata.observe")

Stack = tuple[tuple[CodeType, int], ...]  # code and line of each frame, the innermost first


@dataclass(frozen=True, slots=True)
class Block:
    """One silence of the hub.

    Attributes:
        at: when it was over, in seconds since 1970.
        seconds: how long it was: how late the hub came to a timer.
        label: the innermost line of the user's own code, as "file:line in function".
        stack: the whole stack of the hub's thread during the silence, the innermost frame last.
    """

    at: float
    seconds: float
    label: str
    stack: tuple[Site, ...]

    def __str__(self) -> str:
        frames = "".join(f"\n  {site}" for site in self.stack)
        return f"the hub was silent for {self.seconds:.3f} s in {self.label}{frames}"


class BlockWatch(Closing):
    """Watches the hub of the thread that makes it, until `close`; see `watch_blocks`.

    Attributes:
        threshold: seconds of silence that are blamed.

    Methods are for the hub's thread; `blocks` is safe from any thread.
    """

    def __init__(self, threshold: float, on_block: Callable[[Block], object]) -> None:
        self.threshold = threshold
        self._on_block = on_block
        self._seen: deque[Stack] = deque(maxlen=1)  # a witness appends, the hub's thread pops
        self._blocks: deque[Block] = deque(maxlen=BLOCKS)  # the hub's thread writes
        self._probe = LagProbe(min(MOST, max(LEAST, threshold / 4)))
        self._is_over = False  # the hub's thread sets it, the witness reads
        self._witness_in = 0  # the process that the witness runs in; hub's thread only
        self._probe.on_beat(self._on_beat)
        self._probe.start()
        if self._probe.hub:  # it has begun; else the first beat calls: gevent's monitor ends where it looks before that
            self._call_witness()

    def blocks(self) -> tuple[Block, ...]:
        """The last silences, the newest first."""
        return tuple(reversed(self._blocks.copy()))

    def close(self) -> None:
        """Watch no more. Idempotent."""
        self._is_over = True
        self._probe.close()
        if self._on_event in gevent.events.subscribers:
            gevent.events.subscribers.remove(self._on_event)

    # -- the witness: a native thread, or gevent's ----------------------------------------------------------

    def _call_witness(self) -> None:
        self._witness_in = os.getpid()
        if self._probe.hub.start_periodic_monitoring_thread() is not None:  # the hub's own, if gevent is to have one
            gevent.events.subscribers.append(self._on_event)
        else:
            native.start_thread(self._watch, ())

    def _watch(self) -> None:
        native.name_this_thread("greendata-blame")
        seen = 0.0  # the beat after which the hub fell silent, once it has been seen
        while not self._is_over and self._probe.hub.loop is not None:
            native.sleep(self._probe.interval)
            beat = self._probe.beat
            if beat != seen and monotonic() - beat >= self.threshold:
                seen = beat
                self._look()

    def _on_event(self, event: Any) -> None:
        if isinstance(event, gevent.events.EventLoopBlocked) and event.hub is self._probe.hub:
            self._look()

    def _look(self) -> None:
        """Note what the hub's thread does. Only code and lines: a frame would keep its locals for this thread."""
        frame: FrameType | None = sys._current_frames().get(self._probe.hub.thread_ident)
        found: list[tuple[CodeType, int]] = []
        while frame is not None:
            found.append((frame.f_code, frame.f_lineno or 0))
            frame = frame.f_back
        self._seen.append(tuple(found))

    # -- the hub --------------------------------------------------------------------------------------------

    def _on_beat(self, lag: float) -> None:
        if self._witness_in != os.getpid():  # a fork took our thread; gevent brings its own along
            if self._on_event in gevent.events.subscribers:
                self._witness_in = os.getpid()
            else:
                self._call_witness()
        silence = lag + self._probe.interval
        if silence < self.threshold:
            self._seen.clear()
            return
        stack = self._seen.pop() if self._seen else ()
        sites = tuple(Site(code.co_filename, line, code.co_name) for code, line in reversed(stack))
        block = Block(time(), silence, str(culprit(sites) or "a call that kept the GIL"), sites)
        self._blocks.append(block)
        gevent.spawn(self._on_block, block)  # it may wait for a lock, which the hub itself may not


def watch_blocks(threshold: float = THRESHOLD, *, on_block: Callable[[Block], object] | None = None) -> BlockWatch:
    """Tell of each silence of the calling thread's hub, from now until the watch is closed.

    Where gevent's monitor watches this hub, it is the witness, and its ``max_blocking_time`` decides from when on it
    sees a stack.

    Args:
        threshold: seconds of silence to tell of, >= 0.02.
        on_block: called with each `Block` in a greenlet of the hub; without it the block is logged as a warning of
            the logger "greendata.observe".

    Raises:
        BadArgument: a *threshold* that cannot be used.

    Example:
        >>> import gevent, time
        >>> told = []
        >>> with watch_blocks(0.05, on_block=told.append) as watch:
        ...     while not any("in <module>" in block.label for block in told):
        ...         busy_until = time.monotonic() + 0.1
        ...         while time.monotonic() < busy_until:
        ...             pass
        ...         gevent.sleep(0.02)
        >>> told[-1].seconds > 0.05
        True
    """
    if not is_number(threshold, 2 * LEAST):
        raise BadArgument("threshold", threshold, f"a number of seconds >= {2 * LEAST}")
    return BlockWatch(threshold, on_block or _log)


def _log(block: Block) -> None:
    log.warning("%s", block)
