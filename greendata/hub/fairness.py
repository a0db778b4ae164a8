"""The queue of the pool: round robin over keys, first in first out within a key, and no lock.

A hub puts into it, native threads take from it. A lock would be held by a thread that has just lost the GIL,
and everyone else would wait for both: 200 tiny queries at once cost 106 us each with a lock around the queue
and 35 us without. So each step is one C call on a built-in container, atomic under the GIL:

- an item is in the queue as long as it is in its lane, and whoever pops it from there has it;
- a lane with items has one turn, in a deque. Whoever acquires the lane's ``active`` lock, never waiting for it,
  appends the turn; the taker appends it again while there are items left;
- a key has one lane, or its items would overtake each other. The taker that finds a lane empty marks it as gone before
  it looks whether that is still so; who puts an item looks for the mark afterwards, and moves it. These two alone take
  a lock, for a moment in which nobody has work.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from greendata.hub import native

__all__ = ("FairQueue",)

T = TypeVar("T", bound=Hashable)


class _Lane(Generic[T]):
    """The items of one key."""

    __slots__ = ("active", "gone", "items", "key")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.items: OrderedDict[T, None] = OrderedDict()  # any thread, one C call each
        self.gone = False  # another lane has the key from now on; under the queue's lock, any thread reads
        self.active = native.allocate_lock()  # held while the lane has its turn in the queue or with a taker


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

    __slots__ = ("_lanes", "_lock", "turns", "waiting")

    def __init__(self) -> None:
        self._lanes: dict[Hashable, _Lane[T]] = {}  # any thread; a lane may outlive its entry here
        self._lock = native.RLock()  # for lanes that go; a finalizer in there may put an item
        self.turns: deque[_Lane[T]] = deque()  # true as long as `take` finds something; any thread
        self.waiting: dict[T, _Lane[T]] = {}  # every item and its lane; any thread

    def __len__(self) -> int:
        return len(self.waiting)

    def items(self) -> list[T]:
        """What waits, in the order it came."""
        return list(self.waiting)

    def put(self, key: Hashable, item: T) -> None:
        """Append *item* to the lane of *key*. Never waits for a taker."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes.setdefault(key, _Lane(key))
        self.waiting[item] = lane
        lane.items[item] = None
        if lane.gone:
            lane = self._move(item, lane)
        if lane.active.acquire(False):
            self.turns.append(lane)

    def take(self) -> T | None:
        """The next item in turn, or None. Never blocks.

        It counts as waiting until `let_go`, so that at no moment it is in nobody's books.
        """
        while self.turns:
            try:
                lane = self.turns.popleft()
            except IndexError:  # another taker was faster
                return None
            try:
                item, _ = lane.items.popitem(last=False)
            except KeyError:  # all its items were removed
                self._end_turn(lane)
            else:
                self._end_turn(lane)
                return item
        return None

    def let_go(self, item: T) -> None:
        """Count *item*, which was taken, no longer; the taker has it in its own books now."""
        self.waiting.pop(item, None)

    def remove(self, item: T) -> bool:
        """Take *item* out; False if it is not there. Never blocks."""
        lane = self.waiting.get(item)
        if lane is None or lane.items.pop(item, lane) is lane:
            return False
        self.waiting.pop(item, None)
        return True

    def _end_turn(self, lane: _Lane[T]) -> None:
        if lane.items:
            self.turns.append(lane)
            return
        self._drop(lane)
        lane.active.release()
        if lane.items and lane.active.acquire(False):  # it came just before the release
            self.turns.append(lane)

    def _drop(self, lane: _Lane[T]) -> None:
        with self._lock:
            lane.gone = True
            if self._lanes.get(lane.key) is not lane:  # it went before; somebody who came late had put an item there
                return
            if lane.items:
                lane.gone = False
            else:
                del self._lanes[lane.key]

    def _move(self, item: T, lane: _Lane[T]) -> _Lane[T]:
        """The lane that *item* is in, or was: it was put into *lane* when that was going."""
        with self._lock:
            if not lane.gone:  # it stays after all
                return lane
            if lane.items.pop(item, lane) is lane:  # somebody has taken it
                return lane
            now = self._lanes.get(lane.key)
            if now is None or now.gone:
                now = self._lanes[lane.key] = _Lane(lane.key)
            self.waiting[item] = now
            now.items[item] = None
            return now
