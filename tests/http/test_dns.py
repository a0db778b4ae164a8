"""`Resolver`: names that do not respond delay nobody else, and each is looked up once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest

import greendata
from greendata.http import dns
from greendata.http.dns import LookupFailed, LookupTimeout, Resolver
from tests.conftest import PATCHED
from tests.support.gates import Gate
from tests.support.processes import run_python

A = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
HOUR = 3600.0


class Names:
    """A ``getaddrinfo`` of a test: names that begin with "hung" wait at a gate, those with "no" do not exist."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.asked: list[str] = []
        self._running: set[str] = set()
        self._counts: list[int] = []  # how many ran, when each began

    def __call__(self, host: str, *_: object) -> list[Any]:
        self.asked.append(host)
        self._running.add(host)
        self._counts.append(len(self._running))
        try:
            if host.startswith("hung"):
                self.gate()
            if host.startswith("no"):
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            if host.startswith("bad"):
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return [(*A, (f"192.0.2.{len(host)}", 0)), (*A, (f"192.0.2.{len(host)}", 0))]
        finally:
            self._running.discard(host)

    @property
    def most(self) -> int:
        """How many ran at a time."""
        return max(self._counts)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    monkeypatch.setattr(dns, "HANGING", HOUR)  # what hangs fails nobody in a test that takes long
    names = Names()
    yield names
    names.gate.open()


def resolve(resolver: Resolver, host: str, timeout: float = HOUR) -> list[str]:
    return [address.ip for address in resolver.resolve(host, timeout)]


@contextmanager
def waiting(resolver: Resolver, hosts: list[str], timeout: float = HOUR) -> Iterator[list[gevent.Greenlet]]:
    """Have a greenlet for each of *hosts* wait for its addresses."""

    def wait(host: str) -> list[str] | str:
        try:
            return resolve(resolver, host, timeout)
        except LookupFailed as error:
            return str(error.strerror)

    greenlets = [gevent.spawn(wait, host) for host in hosts]
    try:
        yield greenlets
    finally:
        gevent.killall(greenlets)


def test_addresses_are_cached(names: Names) -> None:
    resolver = Resolver(names)
    for _ in range(3):
        assert resolve(resolver, "example.com") == ["192.0.2.11"]
    assert names.asked == ["example.com"]
    resolver.forget("example.com")
    resolve(resolver, "example.com")
    assert len(names.asked) == 2


@pytest.mark.parametrize(("host", "number"), [("nowhere.test", socket.EAI_NONAME), ("bad.test", socket.EAI_AGAIN)])
def test_failures_are_cached(names: Names, host: str, number: int) -> None:
    resolver = Resolver(names)
    for _ in range(3):
        with pytest.raises(LookupFailed) as caught:
            resolver.resolve(host, HOUR)
        assert caught.value.errno == number
    assert names.asked == [host]


@pytest.mark.parametrize(
    ("host", "seconds"), [("a.test", dns.KNOWN), ("no.test", dns.UNKNOWN), ("bad.test", dns.FAILED)]
)
def test_what_is_cached_expires(names: Names, monkeypatch: pytest.MonkeyPatch, host: str, seconds: float) -> None:
    now = 1_000.0
    monkeypatch.setattr(dns, "monotonic", lambda: now)
    resolver = Resolver(names)

    def ask() -> None:
        with waiting(resolver, [host]) as [asking]:
            asking.join()

    ask()
    now += seconds - 1
    ask()
    assert len(names.asked) == 1
    now += 2
    ask()
    assert len(names.asked) == 2


def test_the_cache_is_bounded(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "CACHED", 3)
    resolver = Resolver(names)
    for host in "abcd":
        resolve(resolver, host)
    for host in "dcb":
        resolve(resolver, host)
    assert names.asked == [*"abcd"]
    resolve(resolver, "a")
    assert names.asked[-1] == "a"


def test_one_lookup_for_all_who_wait_for_a_name(names: Names) -> None:
    resolver = Resolver(names)
    with waiting(resolver, ["hung.test"] * 20) as greenlets:
        names.gate.wait_arrived()
        names.gate.open()
        gevent.joinall(greenlets)
        assert {tuple(greenlet.get()) for greenlet in greenlets} == {("192.0.2.9",)}
    assert names.asked == ["hung.test"]


def test_no_more_than_six_run_at_a_time(names: Names) -> None:
    resolver = Resolver(names, overdue=HOUR)
    hosts = [f"hung{number}.test" for number in range(20)]
    with waiting(resolver, hosts) as greenlets:
        names.gate.wait_arrived(6)
        names.gate.open()
        gevent.joinall(greenlets)
    assert sorted(names.asked) == sorted(hosts)
    assert names.most == 6


def test_names_that_do_not_respond_delay_nobody(names: Names) -> None:
    """Ten lookups hang, and stay so: another name is resolved all the same, and gevent's own resolver is idle."""
    resolver = Resolver(names, overdue=0.01)
    with waiting(resolver, [f"hung{number}.test" for number in range(10)]) as greenlets:
        names.gate.wait_arrived(10)
        assert resolve(resolver, "example.com") == ["192.0.2.11"]
        assert gevent.get_hub().resolver.getaddrinfo("127.0.0.1", 80)
        assert not any(greenlet.ready() for greenlet in greenlets)
        names.gate.open()
        gevent.joinall(greenlets)


def test_a_thousand_names_with_dead_ones_among_them(names: Names) -> None:
    resolver = Resolver(names, overdue=0.005)
    dead = [f"hung{number}.test" for number in range(20)]
    hosts = [f"{'no' if number % 3 else 'is'}{number}.test" for number in range(1_000)]
    with waiting(resolver, dead) as hanging:
        names.gate.wait_arrived(len(dead))
        with waiting(resolver, hosts) as greenlets:
            gevent.joinall(greenlets)
            unknown = [greenlet for greenlet in greenlets if greenlet.get() == "Name or service not known"]
            assert len(unknown) == 666
        assert not any(greenlet.ready() for greenlet in hanging)
    assert len(names.asked) == len(dead) + len(hosts)


def test_lookups_that_hang_are_bounded(names: Names) -> None:
    """No thread is left for another name, so that its waiter leaves at its deadline; later it is looked up."""
    resolver = Resolver(names, lookups=2, overdue=0.001, max_overdue=3)
    with waiting(resolver, [f"hung{number}.test" for number in range(8)]) as greenlets:
        names.gate.wait_arrived(5)
        with pytest.raises(LookupTimeout, match=r"the lookup of 'a\.test' did not end in time"):
            resolver.resolve("a.test", 0.1)
        assert names.most == 5
        names.gate.open()
        gevent.joinall(greenlets)
    assert resolve(resolver, "a.test") == ["192.0.2.6"]


def test_a_waiter_leaves_at_its_deadline(names: Names) -> None:
    """The lookup goes on, and its outcome is cached."""
    resolver = Resolver(names)
    with pytest.raises(LookupTimeout) as caught:
        resolver.resolve("hung.test", 0.05)
    assert isinstance(caught.value, TimeoutError)
    names.gate.open()
    assert resolve(resolver, "hung.test") == ["192.0.2.9"]
    assert names.asked == ["hung.test"]


def test_a_lookup_that_hangs_fails_those_who_come_later(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "HANGING", 0.05)
    resolver = Resolver(names, overdue=0.01)
    for _ in range(3):
        with pytest.raises(LookupTimeout):
            resolver.resolve("hung.test", HOUR)
    names.gate.wait_arrived()
    assert names.asked == ["hung.test"]


def test_a_name_for_which_nobody_waits_any_more_is_not_looked_up(names: Names) -> None:
    resolver = Resolver(names, lookups=1, overdue=HOUR)
    with waiting(resolver, ["hung.test"]):
        names.gate.wait_arrived()
        with pytest.raises(LookupTimeout):
            resolver.resolve("a.test", 0.01)
        with waiting(resolver, ["b.test"]) as [asking]:
            names.gate.open()
            assert asking.get() == ["192.0.2.6"]
    assert names.asked == ["hung.test", "b.test"]


def test_a_killed_waiter_changes_nothing_for_the_others(names: Names) -> None:
    resolver = Resolver(names)
    with waiting(resolver, ["hung.test", "hung.test"]) as [first, second]:
        names.gate.wait_arrived()
        first.kill()
        names.gate.open()
        assert second.get() == ["192.0.2.9"]


def test_the_hub_runs_during_a_lookup(names: Names) -> None:
    resolver = Resolver(names)

    def open_when_asked() -> None:
        names.gate.wait_arrived()
        names.gate.open()

    ticker = gevent.spawn(open_when_asked)
    assert resolve(resolver, "hung.test") == ["192.0.2.9"]
    ticker.get()


def test_native_threads_wait_too(names: Names) -> None:
    resolver = Resolver(names)
    results = [greendata.run(resolve, resolver, "hung.test") for _ in range(2)]
    names.gate.wait_arrived()
    names.gate.open()
    assert [result.get() for result in results] == [["192.0.2.9"]] * 2
    assert names.asked == ["hung.test"]


NUMERIC = {
    "127.0.0.1": "127.0.0.1",
    "0x7f.1": "127.0.0.1",
    "0177.0.0.1": "127.0.0.1",
    "2130706433": "127.0.0.1",
    "127.1": "127.0.0.1",
    "0": "0.0.0.0",
    "::1": "::1",
    "::ffff:127.0.0.1": "::ffff:127.0.0.1",
    "64:ff9b::7f00:1": "64:ff9b::7f00:1",
    "fe80::1%1": "fe80::1%1",
    "\uff11\uff12\uff17.0.0.1": "127.0.0.1",
}


@pytest.mark.parametrize("host", NUMERIC)
def test_addresses_in_any_form_are_not_looked_up(names: Names, host: str) -> None:
    [found] = resolve(Resolver(names), host)
    assert found.partition("%")[0] == NUMERIC[host].partition("%")[0]
    assert names.asked == []


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".test", "a\0b", "", "*.test.invalid"])
def test_names_that_cannot_exist(host: str) -> None:
    with pytest.raises(LookupFailed):
        Resolver().resolve(host, 30.0)


def test_what_a_replaced_function_raises_is_a_failure() -> None:
    def broken(*_: object) -> Any:
        raise RuntimeError("no cache")

    with pytest.raises(LookupFailed, match="RuntimeError: no cache"):
        Resolver(broken).resolve("a.test", HOUR)
    with pytest.raises(LookupFailed, match="it has no addresses"):
        Resolver(lambda *_: []).resolve("a.test", HOUR)


def test_a_function_that_takes_the_place_of_the_system_is_used(monkeypatch: pytest.MonkeyPatch, names: Names) -> None:
    """What the one before it said is forgotten."""
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    assert resolve(resolver, "localhost") == ["192.0.2.9"]
    monkeypatch.undo()
    assert resolve(resolver, "localhost")[0] in ("127.0.0.1", "::1")


@pytest.mark.skipif(not PATCHED, reason="unpatched there is no resolver of gevent's to leave alone")
def test_gevents_resolver_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def used(*_: object) -> Any:
        raise AssertionError("gevent's resolver was asked")

    monkeypatch.setattr(type(gevent.get_hub().resolver), "getaddrinfo", used)
    assert resolve(Resolver(), "localhost")[0] in ("127.0.0.1", "::1")


@pytest.mark.once("unpatched")
def test_a_forked_child_looks_up_by_itself() -> None:
    """The parent forks while a thread holds the lock of the resolver and a lookup hangs."""
    finished = run_python(
        """
        import os
        from greendata.http.dns import resolver

        resolver._lock.acquire()
        child = os.fork()
        if not child:
            print([address.ip for address in resolver.resolve("localhost", 10.0)][0], flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        """
    )
    assert finished.stdout.strip() in ("127.0.0.1", "::1"), finished
