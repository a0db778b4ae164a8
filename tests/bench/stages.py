"""Pipelines: what an element costs, against pypeln and gevent's own pool; what waiting, memory and idleness cost.

Each figure is taken in a process of its own. pypeln's tasks run without a bound, which is in their favour: with
``maxsize=100`` this pipeline hangs now and then, about once in ten runs.
"""

from __future__ import annotations

import itertools
import resource
import sys
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool

from greendata.pipelines import stages
from tests.bench.apart import apart, tell
from tests.bench.rows import Row, interleaved, ratio

__all__ = ("rows",)

ROUNDS = 7
WORKERS = 4
MAXSIZE = 100
IDLE_SECONDS = 5.0
MILLION = 1_000_000


def rows() -> list[Row]:
    """All rows about pipelines."""
    found = interleaved({name: partial(apart, __name__, name) for name in PACES}, ROUNDS)
    three = "elements a second through map|filter|map, against"
    return [
        faster(f"{three} pypeln.task (it has no maxsize)", found["three"], found["pypeln.task"], 25.0),
        faster(f"{three} pypeln.thread", found["three"], found["pypeln.thread"], 8.0),
        faster("elements a second through one map, against gevent's imap_unordered", found["one"], found["Pool"], 5.0),
        waiting(),
        memory(),
        idleness(),
    ]


def waiting() -> Row:
    """1 000 elements of 10 ms each with 100 workers: ideally 100 ms."""
    ideal = 0.1
    took = median(apart(__name__, "waiting") for _ in range(ROUNDS))
    what = "1 000 elements that wait 10 ms, 100 workers: time, against the ideal"
    return Row(what, shown_ms(took), shown_ms(ideal), took / ideal, "x", 1.3)


def memory() -> Row:
    """What the process grows by while a million elements pass through a bounded window."""
    grown = median(apart(__name__, "memory") for _ in range(3)) / 2**20
    what = "growth over a million elements of an endless source through ordered(window=100)"
    return Row(what, f"{grown:.2f} MiB", "", grown, " MiB", 0.5)


def idleness() -> Row:
    """CPU time of a pipeline of 50 stages that waits for its source, against a process that only sleeps."""
    used, asleep = apart(__name__, "idle pipeline"), apart(__name__, "asleep")
    what = f"CPU time of an idle pipeline of 50 stages over {IDLE_SECONDS:g} s, beyond that of a sleeping process"
    return Row(what, shown_ms(used), shown_ms(asleep), max(0.0, used - asleep) * 1e3, " ms", 1.0)


def faster(what: str, ours: list[float], theirs: list[float], bound: float) -> Row:
    """A row about two paces."""
    shown = [f"{median(pace):,.0f} /s" for pace in (ours, theirs)]
    return Row(what, *shown, ratio(ours, theirs), "x", bound, at_most=False)


def shown_ms(seconds: float) -> str:
    """*seconds* as text."""
    return f"{seconds * 1e3:.1f} ms"


# -- in a process of its own ----------------------------------------------------------------------------


def pace_of(count: int, make: Callable[[Iterable[int]], Iterable[int]]) -> float:
    """Elements a second, after a run that warms up."""
    for number in (count // 10, count):
        begun = perf_counter()
        passed = sum(1 for _ in make(range(number)))
        seconds = perf_counter() - begun
        assert passed == number
    return count / seconds


def through_three(library: str, source: Iterable[int], *, maxsize: int = MAXSIZE) -> Iterable[int]:
    """The same pipeline with the library's own functions, which have the same names and keywords."""
    room: Any = import_module(library)
    first = room.map(increment, source, workers=WORKERS, maxsize=maxsize)
    second = room.filter(is_any, first, workers=WORKERS, maxsize=maxsize)
    return room.map(increment, second, workers=WORKERS, maxsize=maxsize)  # type: ignore[no-any-return]


def through_one(source: Iterable[int]) -> Iterable[int]:
    """One stage of ours."""
    return stages.map(increment, source, workers=WORKERS, maxsize=MAXSIZE)


def through_pool(source: Iterable[int]) -> Iterable[int]:
    """The same with gevent's pool of greenlets."""
    found: Iterable[int] = Pool(WORKERS).imap_unordered(increment, source, maxsize=MAXSIZE)
    return found


def increment(x: int) -> int:
    """A trivial function."""
    return x + 1


def is_any(_: int) -> bool:
    """A trivial condition."""
    return True


def seconds_of_waiting() -> float:
    """Wall time of 1 000 waits."""
    stages.map(abs, range(1_000), workers=100).run()
    begun = perf_counter()
    stages.map(lambda _: gevent.sleep(0.01), range(1_000), workers=100).run()
    return perf_counter() - begun


def bytes_grown() -> int:
    """What the process has more after a million elements than before them."""
    chain = itertools.count() | stages.map(increment, workers=WORKERS) | stages.ordered(window=100)
    with stages.to_iterable(chain) as stream:
        drop(stream, MILLION // 10)
        before = resident()
        drop(stream, MILLION)
        return resident() - before


def drop(stream: Iterable[int], count: int) -> None:
    """Take *count* elements."""
    for _ in itertools.islice(stream, count):
        pass


def resident() -> int:
    """Bytes of memory that the process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def seconds_used_idly() -> float:
    """CPU time of 50 stages that have nothing to do."""
    never = Event()
    chain: Any = iter(never.wait, None)
    for _ in range(50):
        chain = chain | stages.map(increment, workers=WORKERS)
    with stages.to_iterable(chain) as stream:
        consumer = gevent.spawn(list, stream)
        gevent.sleep(0.1)
        used = seconds_used_asleep()
    consumer.join()
    return used


def seconds_used_asleep() -> float:
    """CPU time of a process while its main greenlet sleeps."""
    begun = process_time()
    gevent.sleep(IDLE_SECONDS)
    return process_time() - begun


PACES: dict[str, Callable[[], float]] = {
    "three": lambda: pace_of(200_000, partial(through_three, "greendata.pipelines.stages")),
    "pypeln.task": lambda: pace_of(10_000, partial(through_three, "pypeln.task", maxsize=0)),
    "pypeln.thread": lambda: pace_of(20_000, partial(through_three, "pypeln.thread")),
    "one": lambda: pace_of(200_000, through_one),
    "Pool": lambda: pace_of(20_000, through_pool),
}
FIGURES: dict[str, Callable[[], float]] = {
    **PACES,
    "waiting": seconds_of_waiting,
    "memory": bytes_grown,
    "idle pipeline": seconds_used_idly,
    "asleep": seconds_used_asleep,
}


if __name__ == "__main__":
    tell(FIGURES[sys.argv[1]]())
