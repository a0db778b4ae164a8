"""The queue: keys take turns, a key keeps its order, and concurrent puts, takes and removes lose no item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from greendata.pool.fair_queue import FairQueue
from tests.conftest import Gate
from tests.support.natives import Native, get_ident, settle_down, small_pool


def test_keys_take_turns_and_a_key_keeps_its_order(held: Gate) -> None:
    pool = small_pool(max_workers=1)
    pool.submit(held)
    held.wait_arrived()
    ran: list[str] = []
    jobs = ["a1", "a2", "a3", "a4", "b1", "b2", "c1"]
    results = [pool.submit(ran.append, job, key=job[0]) for job in jobs]
    held.open()
    for result in results:
        result.get()
    assert ran == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_a_flood_of_one_key_delays_another_by_one_job(held: Gate) -> None:
    pool = small_pool(max_workers=1)
    pool.submit(held)
    held.wait_arrived()
    ran: list[str] = []
    flood = [pool.submit(ran.append, "flood", key="noisy tenant") for _ in range(1000)]
    pool.submit(ran.append, "quiet", key="quiet tenant")
    held.open()
    flood[-1].get()
    settle_down(pool)
    assert ran.index("quiet") == 1


def test_without_keys_first_in_is_first_out(held: Gate) -> None:
    pool = small_pool(max_workers=1)
    pool.submit(held)
    ran: list[int] = []
    last = [pool.submit(ran.append, number) for number in range(500)][-1]
    held.open()
    last.get()
    assert ran == list(range(500))


def test_keys_without_items_are_forgotten() -> None:
    queue = FairQueue[int]()
    for number in range(1000):
        queue.put(f"key {number}", number)
    for number in range(0, 1000, 2):
        assert queue.remove(number)
        assert not queue.remove(number)
    taken = []
    while (item := queue.take()) is not None:
        taken.append(item)
    assert taken == list(range(1, 1000, 2))
    assert queue.taken == {}
    assert (len(queue), len(queue.rotation), len(queue._key_queues)) == (0, 0, 0)


def test_a_taker_that_retires_a_key_queue_leaves_the_next_one_of_the_key() -> None:
    """A put was between two steps when the queue of its key was retired."""
    queue = FairQueue[str]()
    queue.put("key", "first")
    (key_queue,) = queue._key_queues[hash("key")]
    assert queue.take() == "first"  # retires the key's queue
    queue.waiting["late"] = key_queue  # the late put had found this queue before
    key_queue.items["late"] = None
    queue.rotation[key_queue] = None
    queue.put("key", "x1")  # makes the next queue of the key
    queue.put("key", "x2")
    assert queue.take() == "late"
    queue.put("key", "x3")
    assert [queue.take() for _ in range(3)] == ["x1", "x2", "x3"]


class QueueMachine(RuleBasedStateMachine):
    """Compare any sequence of put, take and remove with lists in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue[int]()
        self.key_queues: dict[str, list[int]] = {}
        self.rotation: list[str] = []
        self.count = 0

    @rule(key=st.sampled_from("abc"))
    def put(self, key: str) -> None:
        self.count += 1
        self.queue.put(key, self.count)
        self.key_queues.setdefault(key, []).append(self.count)
        if key not in self.rotation:
            self.rotation.append(key)

    @rule()
    def take(self) -> None:
        expected = None
        while self.rotation and expected is None:
            key = self.rotation.pop(0)
            expected = self.key_queues[key].pop(0) if self.key_queues[key] else None
            if self.key_queues[key]:
                self.rotation.append(key)
        item = self.queue.take()
        assert item == expected
        assert self.queue.taken == ({} if item is None else {None: item})

    @precondition(lambda self: any(self.key_queues.values()))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(key for key, items in self.key_queues.items() if items)))
        item = data.draw(st.sampled_from(self.key_queues[key]))
        assert self.queue.remove(item)
        assert not self.queue.remove(item)
        self.key_queues[key].remove(item)

    @invariant()
    def holds_what_was_put(self) -> None:
        assert sorted(self.queue.items()) == sorted(item for items in self.key_queues.values() for item in items)


TestQueueMachine = QueueMachine.TestCase


def test_concurrent_puts_takes_and_removes_neither_lose_nor_duplicate_items() -> None:
    queue = FairQueue[tuple[int, int]]()
    per_thread, putters = 4000, 3
    over: list[bool] = []

    def put(number: int) -> list[tuple[int, int]]:
        removed = []
        for index in range(per_thread):
            item = (number, index)
            queue.put(index % 5, item)
            if index % 3 == 0 and queue.remove(item):
                removed.append(item)
        return removed

    def take() -> list[tuple[int, int]]:
        taken = []
        while True:
            was_over = bool(over)
            item = queue.take(get_ident())
            if item is not None:
                taken.append(item)
            elif was_over:
                return taken

    takers = [Native(take) for _ in range(3)]
    removed = [item for thread in [Native(put, number) for number in range(putters)] for item in thread.join()]
    over.append(True)
    taken = [thread.join() for thread in takers]
    everything = Counter([*removed, *(item for part in taken for item in part)])
    assert everything == Counter((number, index) for number in range(putters) for index in range(per_thread))
    assert (len(queue), len(queue.rotation)) == (0, 0)


def test_items_of_one_thread_keep_their_order_while_a_key_queue_is_retired(make_gate: Callable[[], Gate]) -> None:
    """The first item is being put into a queue that is retired; the second one finds the new queue of the key."""
    halt, queue = make_gate(), FairQueue[object]()

    class Slow:
        def __hash__(self) -> int:
            return hash(halt(1))

    def put() -> None:
        queue.put("key", first)
        queue.put("key", "second")

    first = Slow()
    queue.put("key", "before")
    thread = Native(put)
    halt.wait_arrived()
    assert queue.take() == "before"
    queue.put("key", "between")
    assert queue.remove("between")
    halt.open()
    thread.join()
    assert [queue.take(), queue.take(), queue.take()] == [first, "second", None]


def test_jobs_of_many_threads_run_once_each() -> None:
    pool = small_pool(max_workers=4)
    ran: list[tuple[int, int]] = []

    def flood(number: int) -> int:
        results = [pool.submit(ran.append, (number, index), key=index % 3) for index in range(500)]
        cancelled = [result.cancel() for result in results[::2]]
        for result in results:
            result.wait()
        return sum(cancelled)

    cancelled = sum(thread.join() for thread in [Native(flood, number) for number in range(4)])
    settle_down(pool)
    assert max(Counter(ran).values()) == 1
    now = pool.stats()
    assert (now.cancelled, now.done) == (cancelled, 2000 - cancelled)
    assert len(ran) >= now.done  # jobs cancelled while they ran are in `ran` too
