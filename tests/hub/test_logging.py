"""User functions that log inside a query, with and without the router that sends their records to the hub."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

import greendata
from greendata.hub import native
from tests.conftest import Gate, run_python

# Functions in 30 queries log through a patched handler while greenlets do the same.
SERVICE = """
from gevent import monkey
monkey.patch_all()
import logging, os, sys
import gevent, polars as pl, greendata

handler = logging.StreamHandler(open(os.devnull, "w"))
log = logging.getLogger("service")
log.addHandler(handler)
log.setLevel(logging.INFO)
seen = []
handler.addFilter(lambda record: seen.append(record) or True)
{route}

def noisy(column):
    for number in range(200):
        log.info("from a query %d", number)
    return column

def talk():
    for _ in range(300):
        log.info("from a greenlet")
        gevent.sleep(0.0001)

lf = pl.LazyFrame({{"a": [1, 2, 3]}}).select(pl.col("a").map_batches(noisy, return_dtype=pl.Int64))
greenlets = [gevent.spawn(talk) for _ in range(4)]
results = [greendata.collect(lf, engine="in-memory") for _ in range(30)]
everybody = greenlets + results
done = gevent.wait(everybody, timeout={patience})
print(len(done), "of", len(everybody))
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("route", ["", "greendata.route_logging(handler)"])
def test_every_query_and_greenlet_that_logs_comes_to_its_end(route: str) -> None:
    finished = run_python(SERVICE.format(route=route, patience=50))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "34 of 34\n"


class Recorder(logging.Handler):
    """A handler that records each message and the thread that handled it."""

    def __init__(self) -> None:
        super().__init__()
        self.handled: list[tuple[str, int]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.handled.append((record.getMessage(), native.get_ident()))


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, Recorder]]:
    logger, handler = logging.getLogger("tests.router"), Recorder()
    logger.addHandler(handler)
    logger.propagate = False
    yield logger, handler
    logger.removeHandler(handler)


def test_records_from_workers_are_handled_on_the_hubs_thread(log: tuple[logging.Logger, Recorder]) -> None:
    logger, handler = log
    with greendata.route_logging(handler):
        greendata.run(logger.warning, "number %d", 7).get(timeout=10)
        logger.warning("from the hub")
    assert sorted(handler.handled) == [("from the hub", native.get_ident()), ("number 7", native.get_ident())]


def test_closing_logs_the_rest_and_releases_the_handlers(
    log: tuple[logging.Logger, Recorder], make_gate: Callable[[], Gate]
) -> None:
    logger, handler = log
    router = greendata.route_logging(handler)
    greendata.run(logger.warning, "last words").wait()
    router.close()
    router.close()
    assert handler.handled == [("last words", native.get_ident())]
    assert not handler.filters
    thread = greendata.run(lambda: (logger.warning("on my own"), native.get_ident())[1]).get(timeout=10)
    assert handler.handled[1:] == [("on my own", thread)]


def test_without_arguments_all_handlers_are_routed(log: tuple[logging.Logger, Recorder]) -> None:
    _, handler = log
    with greendata.route_logging():
        assert handler.filters
        assert all(each.filters for each in logging.getLogger().handlers)
    assert not handler.filters
