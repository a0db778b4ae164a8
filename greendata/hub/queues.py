"""`SerialQueue`: the calls of one function, one after the other, on one hub."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from types import MethodType
from typing import Any

from greendata.hub.call import Call, Errand, name_of
from greendata.hub.mailbox import Mailbox

__all__ = ("SerialQueue", "identity_of")


class SerialQueue:
    """Calls of one function that never overlap, in the order they came. It is there as long as it has calls.

    Attributes:
        func: the function.

    Safe from any thread; `Caller.queue_call` makes it.
    """

    __slots__ = ("_mailbox", "_on_idle", "_running", "_waiting", "func")

    def __init__(self, func: Callable[..., Any], mailbox: Mailbox, on_idle: Callable[[SerialQueue], object]) -> None:
        self.func = func  # kept alive, so that its identity is nobody else's meanwhile
        self._mailbox = mailbox
        self._on_idle = on_idle
        self._waiting: deque[Errand[Any]] = deque()  # any thread appends, the hub's pops
        self._running: Call[Any] | None = None  # the hub's thread writes

    def __len__(self) -> int:
        """How many calls wait or run."""
        return len(self._waiting) + (self._running is not None)

    def append(self, errand: Errand[Any]) -> None:
        """Have *errand* started when those before it have ended; the caller posts `take`."""
        self._waiting.append(errand)

    def close(self) -> None:
        """Cancel what waits; what runs comes to its end."""
        for errand in list(self._waiting):
            errand.call.cancel("its queue was closed")

    def take(self, errand: Errand[Any]) -> None:
        """*errand*, which was appended, has arrived at the hub. Call from the hub itself."""
        errand.keep_deadline()
        self._proceed()

    def _proceed(self) -> None:
        while self._running is None and self._waiting:
            errand = self._waiting.popleft()
            if not errand.call.ready():
                self._running = errand.call
                errand.start()
        if not len(self):
            self._on_idle(self)

    def note_end(self, call: Call[Any]) -> None:
        """*call* has ended. Call from the hub itself."""
        if call is self._running:
            self._running = None
            self._mailbox.post(self._proceed)

    def __repr__(self) -> str:
        return f"<SerialQueue of {name_of(self.func)}: {len(self)} calls>"


def identity_of(func: Callable[..., Any]) -> Hashable:
    """What tells *func* from every other callable that lives; one method of one object is always the same."""
    if isinstance(func, MethodType):
        return id(func.__self__), id(func.__func__)
    return id(func)
