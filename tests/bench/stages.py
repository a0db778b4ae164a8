"""Pipelines: what an element costs, against pypeln and gevent's own pool; what waiting, memory and idleness cost."""

from __future__ import annotations

import itertools
import resource
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import gevent
import pypeln
from gevent.event import Event
from gevent.pool import Pool

from greendata.flow import stages
from tests.bench.rows import Row, interleaved, ratio

__all__ = ("rows",)

ROUNDS = 5
WORKERS = 4
MAXSIZE = 100
IDLE_SECONDS = 5.0
MILLION = 1_000_000
PAGE = resource.getpagesize()


def rows() -> list[Row]:
    """All rows about pipelines."""
    return [*three_stages(), one_stage(), waiting(), memory(), idleness()]


def three_stages() -> list[Row]:
    """Elements through map, filter and map with trivial functions."""
    contenders = {
        "greendata": lambda: pace_of(100_000, lambda source: through(stages, source)),
        # without a bound, which is in its favour: with one it now and then hangs
        "pypeln.task": lambda: pace_of(4_000, lambda source: through(pypeln.task, source, maxsize=0)),
        "pypeln.thread": lambda: pace_of(10_000, lambda source: through(pypeln.thread, source)),
    }
    found = interleaved(contenders, ROUNDS)
    bounds = {"pypeln.task": 25.0, "pypeln.thread": 8.0}
    return [against(f"elements a second through map|filter|map, against {p}", found, p, b) for p, b in bounds.items()]


def one_stage() -> Row:
    """Elements through one map, against gevent's pool of greenlets."""
    contenders = {
        "greendata": lambda: pace_of(
            100_000, lambda source: stages.map(increment, source, workers=WORKERS, maxsize=MAXSIZE)
        ),
        "Pool": lambda: pace_of(
            10_000, lambda source: Pool(WORKERS).imap_unordered(increment, source, maxsize=MAXSIZE)
        ),
    }
    found = interleaved(contenders, ROUNDS)
    return against("elements a second through one map, against gevent's imap_unordered", found, "Pool", 5.0)


def waiting() -> Row:
    """1 000 elements of 10 ms each with 100 workers: ideally 100 ms."""
    ideal = 0.1
    took = median(seconds_of_waiting() for _ in range(ROUNDS))
    return Row("1 000 waits of 10 ms, 100 workers", shown_ms(took), shown_ms(ideal), took / ideal, "x", 1.3)


def seconds_of_waiting() -> float:
    begun = perf_counter()
    stages.map(lambda _: gevent.sleep(0.01), range(1_000), workers=100).run()
    return perf_counter() - begun


def memory() -> Row:
    """What the process grows by while a million elements pass through a bounded window."""
    chain = itertools.count() | stages.map(increment, workers=WORKERS) | stages.ordered(window=100)
    with stages.to_iterable(chain) as stream:
        drop(stream, MILLION // 10)
        before = resident()
        drop(stream, MILLION)
        grown = (resident() - before) / 2**20
    what = "growth over a million elements of an endless source through ordered(window=100)"
    return Row(what, f"{grown:.2f} MiB", "0 MiB", grown, " MiB", 1.0)


def idleness() -> Row:
    """CPU time of a pipeline of 50 stages that waits for its source."""
    never = Event()
    chain: Any = iter(never.wait, None)
    for _ in range(50):
        chain = chain | stages.map(increment, workers=WORKERS)
    stream = iter(chain)
    consumer = gevent.spawn(list, stream)
    gevent.sleep(0.1)
    begun = process_time()
    gevent.sleep(IDLE_SECONDS)
    used = process_time() - begun
    stream.close()
    consumer.join()
    what = f"CPU time of an idle pipeline of 50 stages over {IDLE_SECONDS:g} s"
    return Row(what, shown_ms(used), shown_ms(0.0), used * 1e3, " ms", 5.0)


def increment(x: int) -> int:
    return x + 1


def is_any(_: int) -> bool:
    return True


def through(library: Any, source: Iterable[int], maxsize: int = MAXSIZE) -> Iterable[int]:
    """The same pipeline with the library's own functions, which have the same names and keywords."""
    first = library.map(increment, source, workers=WORKERS, maxsize=maxsize)
    second = library.filter(is_any, first, workers=WORKERS, maxsize=maxsize)
    return library.map(increment, second, workers=WORKERS, maxsize=maxsize)


def pace_of(count: int, make: Callable[[Iterable[int]], Iterable[int]]) -> float:
    """Elements a second."""
    begun = perf_counter()
    passed = sum(1 for _ in make(range(count)))
    assert passed == count
    return count / (perf_counter() - begun)


def drop(stream: Iterable[int], count: int) -> None:
    for _ in itertools.islice(stream, count):
        pass


def resident() -> int:
    """Bytes of memory that the process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def shown_ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def against(what: str, figures: dict[str, list[float]], peer: str, bound: float) -> Row:
    ours, theirs = figures["greendata"], figures[peer]
    shown = [f"{median(pace):,.0f}/s" for pace in (ours, theirs)]
    return Row(what, *shown, ratio(ours, theirs), "x", bound, at_most=False)
