"""Defer cyclic garbage collection during work in slices, and catch up afterwards.

A collection traverses every new object. As objects accumulate it becomes a full collection, which traverses every
object of the process: the hub was blocked for 117 ms with 150 000 models. So:

- No collection begins during a slice.
- At the end of a slice that created many objects, the young generations are collected. That takes a fifth of the time
  that it took to create the objects. It frees garbage of the slice and of other greenlets.
- A full collection is deferred while a call runs that keeps the objects it creates. It runs before the next call,
  once the slices since the last full collection have taken `SHARE` times as long as that collection did.

Collection is deferred by setting the threshold, never by `gc.disable`. That switch belongs to the user, who may use it
during a slice or in another thread; nothing is collected here while it is off. A threshold that the user sets during a
slice is kept, and so are frozen objects.
"""

from __future__ import annotations

import gc
import os
from collections import deque
from collections.abc import Iterator
from math import inf
from operator import call
from time import perf_counter

from greendata.hub import native
from greendata.hub.contexts import contextmanager

__all__ = ("deferred", "run_deferred")

DEFERRED = 2_000_000_011  # objects: more than a slice ever creates, and a number that no user chooses
SHARE = 50  # full collections get 1/50, or 2 percent, of the time that slices take
FIRST_COST = 0.05  # seconds: the assumed duration of the first full collection
NEVER = inf  # objects


@contextmanager
def deferred() -> Iterator[None]:
    """Defer collection during the block; at its end collect young objects, if the block created many.

    The block must not switch greenlets. Safe from any thread.

    Example:
        >>> with deferred():
        ...     rows = [[number] for number in range(10_000)]
    """
    begun, before = perf_counter(), gc.get_count()[0]
    try:
        _defer()
        yield
    finally:
        try:
            if gc.get_count()[0] - before > _threshold():
                gc.collect(1)
                _postpone(perf_counter() - begun)
        finally:
            _deferring.pop(native.get_ident(), None)
            _restore()


def run_deferred() -> None:
    """Run a full collection if one was deferred and is due. Safe from any thread.

    Call it when no large structure is under construction, because a full collection traverses that as well.

    Example:
        >>> run_deferred()
    """
    global _slice_seconds, _cost, _full_collections
    if _slice_seconds < SHARE * _cost or _threshold() == NEVER:
        return
    _slice_seconds, known = 0.0, _full_collections
    _full_collections = gc.get_stats()[2]["collections"]
    if known == _full_collections:  # Python has run none in the meantime
        begun = perf_counter()
        gc.collect()
        _cost, _full_collections = perf_counter() - begun, _full_collections + 1


def _defer() -> None:
    global _thresholds
    _deferring[native.get_ident()] = None
    found = gc.get_threshold()
    if found[0] not in (0, DEFERRED):
        _thresholds = found
        gc.set_threshold(DEFERRED, *found[1:])


def _restore() -> None:
    """Restore the threshold, unless another thread is in a slice or the user has set one in the meantime."""
    if not _deferring and gc.get_threshold()[0] == DEFERRED:
        gc.set_threshold(*_thresholds)


def _threshold() -> float:
    """Return how many objects count as many: the user's threshold, or `NEVER` if collection is switched off."""
    found = gc.get_threshold()[0]
    limit = _thresholds[0] if found == DEFERRED else found
    return limit if limit and gc.isenabled() else NEVER


def _postpone(seconds: float) -> None:
    """Put off the next full collection after a slice of *seconds*, if half of the way to it has passed.

    Python runs one when the collections of the middle generation since the last one exceed the third threshold.
    Freezing and unfreezing resets that count. It also moves all objects to the oldest generation, but there are no
    young objects at this point.
    """
    global _slice_seconds, _has_frozen
    _slice_seconds += seconds
    if _has_frozen or gc.get_count()[2] < gc.get_threshold()[2] / 2:
        return
    _has_frozen = gc.get_freeze_count() > 0
    if not _has_frozen:
        deque(map(call, (gc.freeze, gc.unfreeze)), maxlen=0)  # one step for other threads


def _after_fork_in_child() -> None:
    """Remove the entries of threads that do not exist in the child, and restore the threshold."""
    here = native.get_ident()
    for thread in [thread for thread in _deferring if thread != here]:
        del _deferring[thread]
    _restore()


# Any thread reads and writes these, one C call each. A race between two threads loses no more than one slice's time.
_deferring: dict[int, None] = {}  # idents of the threads that are in a slice
_thresholds = gc.get_threshold()  # the user's, while the current first one is DEFERRED
_slice_seconds = 0.0  # seconds of slices that created many objects, since the last full collection
_cost = FIRST_COST  # seconds that the last one took
_full_collections = -1  # the number of full collections of this process, when it was last read
_has_frozen = False  # permanent: the process has frozen objects, and counting them traverses each
os.register_at_fork(after_in_child=_after_fork_in_child)
