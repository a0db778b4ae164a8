"""The queue of the pool: round robin over keys, first in first out within a key, and no lock on an item's way.

A hub puts into it, native threads take from it. A lock would be held by a thread that has just lost the GIL,
and everyone else would wait for both: 200 tiny queries at once cost 106 us each with a lock around the queue
and 35 us without. So each step is one C call on a built-in container, atomic under the GIL. A signal handler may raise
between any two of them, so no step needs a later one to be true, and to do one again changes nothing:

- an item is in the queue as long as it is in ``waiting``, and whoever pops it from there has it. Its place in a lane
  only says when its turn comes: what is still there of an item that somebody has is passed over;
- a lane with items has its turn: it is a key of ``turns``. To give it one that it has already changes nothing;
- a taker notes an item in ``taken`` before it pops it, so that at no moment the item is in nobody's list;
- a key has one lane, or its items would overtake each other. The taker that finds a lane empty marks it as gone before
  it looks whether that is still so; who puts an item looks for the mark afterwards, and goes to the next lane. These
  two alone take a lock, for a moment in which nobody has work.

Keys are the user's objects. They are hashed once and compared in `put`, where the user's request is; a taker knows
lanes by their identity.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from greendata.hub import native

__all__ = ("FairQueue",)

T = TypeVar("T", bound=Hashable)


class _Lane(Generic[T]):
    """The items of one key."""

    __slots__ = ("is_gone", "items", "key", "number")

    def __init__(self, key: Hashable, number: int) -> None:
        self.key = key
        self.number = number  # the hash of the key
        self.items: OrderedDict[T, None] = OrderedDict()  # any thread, one C call each
        self.is_gone = False  # another lane has the key from now on; under the queue's lock, any thread reads


class FairQueue(Generic[T]):
    """Items in lanes, one lane a key; each lane gives one item in turn. Safe from any thread.

    put, take and remove are O(1) at any length.

    Example:
        >>> queue = FairQueue[str]()
        >>> for item in ("a1", "a2", "a3", "b1"):
        ...     queue.put(item[0], item)
        >>> [queue.take() for _ in range(4)]
        ['a1', 'b1', 'a2', 'a3']
    """

    __slots__ = ("_lanes", "_lock", "_main", "taken", "turns", "waiting")

    def __init__(self) -> None:
        self._lock = native.RLock()  # for lanes that go; a finalizer in there may put an item
        self._lanes: dict[
            int, tuple[_Lane[T], ...]
        ] = {}  # by hash; entries are added by any thread, else under the lock
        self._main: _Lane[T] = _Lane(None, 0)  # of items without a key; it never goes
        self.turns: OrderedDict[_Lane[T], None] = OrderedDict()  # true as long as `take` finds something; any thread
        self.waiting: dict[T, _Lane[T]] = {}  # every item and its lane; any thread
        self.taken: dict[Hashable, T] = {}  # by taker: what it has, or is about to take; each taker has its own entry

    def __len__(self) -> int:
        return len(self.waiting)

    def items(self) -> list[T]:
        """What waits, in the order it came."""
        return list(self.waiting)

    def put(self, key: Hashable, item: T) -> None:
        """Append *item* to the lane of *key*. Never waits for a taker.

        Raises:
            BaseException: what the key raises when it is hashed or compared; nothing was queued.
        """
        number = 0 if key is None else hash(key)
        lane = self._main if key is None else self._lane_of(key, number)
        self.waiting[item] = lane
        lane.items[item] = None
        while lane.is_gone and self._has_gone(lane):
            lane.items.pop(item, None)
            lane = self._lane_of(key, number)
            lane.items[item] = None
        self.turns[lane] = None

    def take(self, taker: Hashable = None) -> T | None:
        """The next item in turn, which *taker* has from now on until `let_go`; None if there is none. Never blocks."""
        turns = self.turns
        while turns:
            try:
                lane = next(iter(turns))
                item = next(iter(lane.items), None)
            except (RuntimeError, StopIteration):  # another taker came in between
                continue
            if item is None:
                self._pass_on(lane)
                continue
            self.taken[taker] = item
            is_mine = self.waiting.pop(item, None) is not None  # else it was removed, or another taker was faster
            lane.items.pop(item, None)
            if is_mine:
                self._pass_on(lane)
                return item
        self.let_go(taker)
        return None

    def let_go(self, taker: Hashable) -> None:
        """*taker* is done with what it has taken."""
        self.taken.pop(taker, None)

    def remove(self, item: T) -> bool:
        """Take *item* out; False if it is not there. Never blocks."""
        lane = self.waiting.pop(item, None)
        if lane is None:
            return False
        lane.items.pop(item, None)
        return True

    def mend(self) -> None:
        """Give each item that waits its place and its turn again: a `put` may have been interrupted by a signal."""
        for item in self.items():
            lane = self.waiting.get(item)
            if lane is not None:
                lane.items[item] = None
                self.turns[lane] = None

    def _pass_on(self, lane: _Lane[T]) -> None:
        """The next lane's turn."""
        if lane.items:
            try:
                self.turns.move_to_end(lane)
            except KeyError:  # another taker found it empty a moment ago
                self.turns[lane] = None
            return
        self.turns.pop(lane, None)
        if lane is not self._main:
            self._drop(lane)
        if lane.items:  # one came meanwhile, and found the lane's turn still there
            self.turns[lane] = None

    def _drop(self, lane: _Lane[T]) -> None:
        with self._lock:
            lane.is_gone = True
            if lane.items:
                lane.is_gone = False
                return
            others = tuple(other for other in self._lanes.get(lane.number, ()) if not other.is_gone)
            if others:
                self._lanes[lane.number] = others
            else:
                self._lanes.pop(lane.number, None)

    def _has_gone(self, lane: _Lane[T]) -> bool:
        with self._lock:  # whoever ends it has made up its mind
            return lane.is_gone

    def _lane_of(self, key: Hashable, number: int) -> _Lane[T]:
        """The lane of *key*, whose hash is *number*."""
        found = self._lanes.get(number)
        if found is None:
            found = self._lanes.setdefault(number, (_Lane(key, number),))
        while True:
            for lane in found:
                if not lane.is_gone and (lane.key is key or lane.key == key):
                    return lane
            with self._lock:  # none, or one that goes; keys are not compared in here, as they may do what they like
                now = self._lanes.get(number, ())
                if now is found or not now:
                    found = self._lanes[number] = (*now, _Lane(key, number))
                else:
                    found = now
