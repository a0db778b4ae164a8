"""Names are resolved while every worker is blocked: gevent resolves DNS in another pool."""

from __future__ import annotations

from collections.abc import Callable

import gevent.socket

from greendata.pool.pool import configure, stats, submit
from tests.conftest import Gate


def test_getaddrinfo_answers_while_every_worker_is_held(make_gate: Callable[[], Gate]) -> None:
    held = make_gate()
    workers = configure().max_workers
    results = [submit(held, number) for number in range(3 * workers)]
    held.wait_arrived(workers)
    assert stats().running == workers
    assert gevent.socket.getaddrinfo("localhost", 80)  # the gate is opened only after it has answered
    assert not any(result.ready() for result in results)
    held.open()
    assert [result.get() for result in results] == list(range(3 * workers))
