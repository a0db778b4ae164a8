"""The queue of the pool: round robin over keys, first in first out within a key, without a lock on the common path.

Hub threads put items into it, native threads take items from it. A thread that has just lost the GIL would keep a lock
while all other threads wait for both: 200 tiny queries at once cost 106 us each with a lock around the queue, and 35 us
without. So each step is one C call on a built-in container, which is atomic under the GIL. A signal handler may raise
an exception between any two steps. Therefore the state is consistent after each step, and repeating a step is harmless:

- An item is in the queue as long as it is in ``waiting``. The thread that pops it from there owns it. Its place in a
  key's queue only determines the order; takers skip entries there that are no longer in ``waiting``.
- A key's queue that has items is in ``rotation``. Adding it again has no effect.
- A taker records an item in ``taken`` before it pops the item from ``waiting``, so that the item is always in at least
  one of the two.
- A key has exactly one current queue, otherwise its items could overtake each other. A taker that finds a key's queue
  empty marks it as retired, and then checks again that it is empty. A thread that puts an item checks for the mark
  after it has added the item, and moves on to the key's next queue if it is set. Only these two steps take a lock, and
  only for a moment when the key has no work.

Keys are objects of the user. They are hashed once, and compared in `put` only, on the user's thread. Takers identify
the queues of keys by object identity.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from greendata.hub import native

__all__ = ("FairQueue",)

T = TypeVar("T", bound=Hashable)


class _KeyQueue(Generic[T]):
    """The items of one key, in the order in which they were put."""

    __slots__ = ("is_retired", "items", "key", "number")

    def __init__(self, key: Hashable, number: int) -> None:
        self.key = key
        self.number = number  # the hash of the key
        self.items: OrderedDict[T, None] = OrderedDict()  # any thread, one C call each
        self.is_retired = False  # the key has another queue; written under the lock, read by any thread


class FairQueue(Generic[T]):
    """A queue for each key; `take` visits the keys in turn and takes one item from each. Safe from any thread.

    `put`, `take` and `remove` are O(1) at any length.

    Example:
        >>> queue = FairQueue[str]()
        >>> for item in ("a1", "a2", "a3", "b1"):
        ...     queue.put(item[0], item)
        >>> [queue.take() for _ in range(4)]
        ['a1', 'b1', 'a2', 'a3']
    """

    __slots__ = ("_key_queues", "_keyless", "_lock", "rotation", "taken", "waiting")

    def __init__(self) -> None:
        self._lock = native.RLock()  # for retiring key queues; reentrant: a finalizer that runs inside may put an item
        # By hash. Any thread adds entries; they are changed and removed under the lock.
        self._key_queues: dict[int, tuple[_KeyQueue[T], ...]] = {}
        self._keyless: _KeyQueue[T] = _KeyQueue(None, 0)  # for items without a key; it is never retired
        self.rotation: OrderedDict[_KeyQueue[T], None] = OrderedDict()  # not empty while items wait; any thread
        self.waiting: dict[T, _KeyQueue[T]] = {}  # every item and the queue of its key; any thread
        self.taken: dict[Hashable, T] = {}  # taker -> the item it has, or is about to take; each writes its own entry

    def __len__(self) -> int:
        return len(self.waiting)

    def items(self) -> list[T]:
        """Return the waiting items, in the order in which they were put."""
        return list(self.waiting)

    def put(self, key: Hashable, item: T) -> None:
        """Append *item* to the queue of *key*. Never waits for a taker.

        Raises:
            BaseException: whatever the key raises when it is hashed or compared; nothing was queued.
        """
        number = 0 if key is None else hash(key)
        key_queue = self._keyless if key is None else self._key_queue_of(key, number)
        self.waiting[item] = key_queue
        key_queue.items[item] = None
        while key_queue.is_retired and self._is_retired(key_queue):
            key_queue.items.pop(item, None)
            key_queue = self._key_queue_of(key, number)
            key_queue.items[item] = None
        self.rotation[key_queue] = None

    def take(self, taker: Hashable = None) -> T | None:
        """Return the next item, or None if the queue is empty. Never blocks.

        The item is recorded in ``taken`` for *taker* until `release`.
        """
        rotation = self.rotation
        while rotation:
            try:
                key_queue = next(iter(rotation))
                item = next(iter(key_queue.items), None)
            except (RuntimeError, StopIteration):  # another taker changed it in between
                continue
            if item is None:
                self._rotate(key_queue)
                continue
            self.taken[taker] = item
            is_mine = self.waiting.pop(item, None) is not None  # else it was removed or taken
            key_queue.items.pop(item, None)
            if is_mine:
                self._rotate(key_queue)
                return item
        self.release(taker)
        return None

    def release(self, taker: Hashable) -> None:
        """Forget the item that *taker* has taken."""
        self.taken.pop(taker, None)

    def remove(self, item: T) -> bool:
        """Remove *item*; return False if it is not in the queue. Never blocks."""
        key_queue = self.waiting.pop(item, None)
        if key_queue is None:
            return False
        key_queue.items.pop(item, None)
        return True

    def repair(self) -> None:
        """Restore the place of each waiting item in its key's queue, and of that queue in the rotation.

        A signal handler may have interrupted the `put` that should have added them.
        """
        for item in self.items():
            key_queue = self.waiting.get(item)
            if key_queue is not None:
                key_queue.items[item] = None
                self.rotation[key_queue] = None

    def _rotate(self, key_queue: _KeyQueue[T]) -> None:
        """Move *key_queue*, which is the first in the rotation, to the end, or remove it if it is empty."""
        if key_queue.items:
            try:
                self.rotation.move_to_end(key_queue)
            except KeyError:  # another taker just found it empty and removed it
                self.rotation[key_queue] = None
            return
        self.rotation.pop(key_queue, None)
        if key_queue is not self._keyless:
            self._retire(key_queue)
        if key_queue.items:  # one was put meanwhile, when the queue was still in the rotation
            self.rotation[key_queue] = None

    def _retire(self, key_queue: _KeyQueue[T]) -> None:
        """Forget *key_queue* unless it has items."""
        with self._lock:
            key_queue.is_retired = True
            if key_queue.items:
                key_queue.is_retired = False
                return
            others = tuple(other for other in self._key_queues.get(key_queue.number, ()) if not other.is_retired)
            if others:
                self._key_queues[key_queue.number] = others
            else:
                self._key_queues.pop(key_queue.number, None)

    def _is_retired(self, key_queue: _KeyQueue[T]) -> bool:
        with self._lock:  # wait until `_retire` has decided
            return key_queue.is_retired

    def _key_queue_of(self, key: Hashable, number: int) -> _KeyQueue[T]:
        """Return the current queue of *key*, whose hash is *number*."""
        found = self._key_queues.get(number)
        if found is None:
            found = self._key_queues.setdefault(number, (_KeyQueue(key, number),))
        while True:
            for key_queue in found:
                if not key_queue.is_retired and (key_queue.key is key or key_queue.key == key):
                    return key_queue
            with self._lock:  # none, or a retired one; keys are not compared here: that runs code of the user
                now = self._key_queues.get(number, ())
                if now is found or not now:
                    found = self._key_queues[number] = (*now, _KeyQueue(key, number))
                else:
                    found = now
