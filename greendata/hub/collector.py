"""The cyclic garbage collector beside work in slices: it rests during a slice, and gets its due afterwards.

A collection looks at every object that was made, and as they pile up it goes on to a full collection, which looks at
every object of the process: 117 ms of silence over 150 000 models. So

- no collection begins during a slice;
- at the end of a slice that made many objects the young ones are looked through, which takes a fifth of the time that
  it took to make them. The garbage among them, and what other greenlets have left, is collected there;
- a full collection is put off for as long as a call goes on that keeps what it makes. It is made up for before the
  next call, once the slices since the last one have taken `SHARE` times as long as that one did.

What tells the collector to rest is its threshold, and never `gc.disable`: that is the user's, who may call it in a
slice or in another thread meanwhile, and then nothing is collected here either. A threshold that the user sets during
a slice stays as well, and so does what the user has frozen.
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

__all__ = ("at_rest", "make_up")

AT_REST = 2_000_000_011  # objects that a slice never makes; a number that no user chooses
SHARE = 50  # times as long as a full collection: it is given 2 percent of the time that slices take
FIRST = 0.05  # seconds that the first full collection is taken to need
NEVER = inf  # objects


@contextmanager
def at_rest() -> Iterator[None]:
    """Begin no collection in the block; at its end collect what is young, if the block made many objects.

    The block must not switch greenlets. Safe from any thread.

    Example:
        >>> with at_rest():
        ...     rows = [[number] for number in range(10_000)]
    """
    begun, before = perf_counter(), gc.get_count()[0]
    try:
        _rest()
        yield
    finally:
        try:
            if gc.get_count()[0] - before > _limit():
                gc.collect(1)
                _put_off(perf_counter() - begun)
        finally:
            _resting.pop(native.get_ident(), None)
            _wake()


def make_up() -> None:
    """Make up for the full collections that were put off, if that is due. Safe from any thread.

    Call it where nothing is half made: a full collection looks at that as well.

    Example:
        >>> make_up()
    """
    global _worked, _cost, _full
    if _worked < SHARE * _cost or _limit() == NEVER:
        return
    _worked, known = 0.0, _full
    _full = gc.get_stats()[2]["collections"]
    if known == _full:  # none has come by itself meanwhile
        begun = perf_counter()
        gc.collect()
        _cost, _full = perf_counter() - begun, _full + 1


def _rest() -> None:
    global _thresholds
    _resting[native.get_ident()] = None
    found = gc.get_threshold()
    if found[0] not in (0, AT_REST):
        _thresholds = found
        gc.set_threshold(AT_REST, *found[1:])


def _wake() -> None:
    """Give the collector its threshold back, unless another thread is in a slice or the user has set one meanwhile."""
    if not _resting and gc.get_threshold()[0] == AT_REST:
        gc.set_threshold(*_thresholds)


def _limit() -> float:
    """How many objects are many: the user's threshold; `NEVER` where the user has the collector off."""
    found = gc.get_threshold()[0]
    limit = _thresholds[0] if found == AT_REST else found
    return limit if limit and gc.isenabled() else NEVER


def _put_off(seconds: float) -> None:
    """Put the next full collection off, after a slice of so many *seconds*, where half of the way to it is gone.

    It comes once the collections of young objects since the last one are more than the third threshold. Freezing and
    unfreezing sets their number to zero. It makes all objects old too, but of young ones there are none just now.
    """
    global _worked, _is_left_alone
    _worked += seconds
    if _is_left_alone or gc.get_count()[2] < gc.get_threshold()[2] / 2:
        return
    _is_left_alone = gc.get_freeze_count() > 0
    if not _is_left_alone:
        deque(map(call, (gc.freeze, gc.unfreeze)), maxlen=0)  # one step: no other thread comes in between


def _after_fork_in_child() -> None:
    """The other threads, that would wake the collector, are not there."""
    here = native.get_ident()
    for thread in [thread for thread in _resting if thread != here]:
        del _resting[thread]
    _wake()


# Any thread reads and writes these, one C call each. Two that do so at once lose no more than the length of a slice.
_resting: dict[int, None] = {}  # the threads that are in a slice
_thresholds = gc.get_threshold()  # the user's, while the first of them is AT_REST
_worked = 0.0  # seconds of slices that made many objects, since the last full collection
_cost = FIRST  # seconds that the last one took
_full = -1  # full collections of this process, when they were last counted
_is_left_alone = False  # for good: the process has frozen objects, and to count them is to look at each
os.register_at_fork(after_in_child=_after_fork_in_child)
