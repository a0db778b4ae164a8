"""The crew: a pool's native threads, who of them works, and when the hub is woken.

Waking a sleeping thread costs more than a tiny query (some 40 us on an idle core of a virtual machine, against 15),
and two threads that want the GIL at once wake each other at every native call. So no more threads are awake than
are of use:

- Somebody who puts a job calls one worker, unless one is called already: the holder of ``_call``.
- A worker that takes a job while others wait calls a second worker to *stand by*. That one sleeps `GRACE` and
  looks: if the others got through `QUICK` jobs meanwhile, it leaves them to it; else it takes a job, and calls the
  next. So long queries run side by side half a millisecond after they were submitted, and tiny ones run one after
  the other on a thread that is awake.
- While somebody stands by, a worker with more jobs before it notes who is to be woken, and goes on; the one who
  stands by rings for it. An outcome waits for that half a millisecond at the most.

The numbers are guesses that measurements bear out: tests/bench/tiny.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from time import monotonic
from typing import Any

from gevent._hub_local import get_hub_if_exists

from greendata.errors import NoThread, PoolClosed
from greendata.hub import native, native_waits
from greendata.hub.bridge import Bridge
from greendata.hub.fairness import FairQueue
from greendata.hub.hubs import take_down
from greendata.hub.job import Job
from greendata.hub.locks import SimpleQueue
from greendata.hub.parking import never_turn_where
from greendata.hub.settings import Settings

__all__ = (
    "Crew",
    "Worker",
    "aside",
    "inline_on",
    "is_inline_thread",
    "job_here",
    "run_in_pool_here",
    "run_inline_here",
)

GRACE = 0.0005  # seconds between two looks of the worker that stands by
QUICK = 4  # jobs in a GRACE, 125 us each, that need no second thread

LEAVE = 1.0  # seconds for hubs to be taken down at exit, which takes some milliseconds

_CALL, _STAND_BY, _RETIRE, _END = "call", "stand by", "retire", "end"

_runtime_threads: tuple[str, ...] = ()  # name prefixes; written at import, see inline_on
_local = native.Local()
_names = count()


class Worker:
    """One native thread and its books; the thread writes, any thread reads."""

    __slots__ = ("cancelled", "done", "failed", "lost", "name", "since", "taken")

    def __init__(self) -> None:
        self.name = f"greendata-{next(_names)}"
        self.since = 0.0  # when its job began
        self.taken = 0  # jobs
        self.done = self.failed = self.cancelled = 0  # jobs by outcome
        self.lost = False  # it ends after its job: written off, or one too many; under the crew's lock


class Crew:
    """The threads that take jobs from a queue.

    Args:
        settings: returns the settings now in force. Safe from any thread.
        after_job: called after each job that leaves a draining pool, when the books are right.
    """

    def __init__(self, settings: Callable[[], Settings], after_job: Callable[[], None]) -> None:
        self.queue: FairQueue[Job] = FairQueue()
        self.running: dict[Job, Worker] = {}  # workers put and pop, any thread reads
        self._settings = settings
        self._after_job = after_job
        self.draining = False  # after_job is to be called; the pool writes, workers read
        self._tokens = SimpleQueue()  # where workers sleep, and let their hubs turn; any thread puts
        self._call = native.allocate_lock()  # held from a call until the called worker has looked
        self._hubs: set[Any] = set()  # in which workers sleep; they add and discard
        self._standing_by = False  # a worker does; it writes, workers read
        self._unrung: set[Bridge] = set()  # workers add and pop
        self.lock = native.RLock()  # guards all below
        self.workers: set[Worker] = set()
        self.lost: set[Worker] = set()  # written off, and their jobs have not returned
        self.left = {"done": 0, "failed": 0, "cancelled": 0}  # jobs of workers that ended, and of none
        self._watching = False  # a thread looks after stuck jobs

    # -- any thread -------------------------------------------------------------------------------------

    def put(self, job: Job) -> None:
        """Queue *job*. Never blocks.

        Raises:
            NoThread: there is no worker and none can be started; the job is queued all the same.
            PoolClosed: the pool is being drained; likewise.
        """
        # Queued first: whoever looks for stuck jobs goes home when nothing waits, and of two threads that submit
        # at once the second one sees that there are more jobs than workers.
        self.queue.put(job.key, job)
        if self.draining:  # looked at when it is queued: whoever drains looks the other way round
            raise PoolClosed
        if len(self.queue.waiting) + len(self.running) > len(self.workers) or self.lost:
            self._make_room()
        if self._call.acquire(False):
            self._tokens.put(_CALL)

    def remove(self, job: Job) -> None:
        """Take *job*, whose result is settled, out of the queue if it is there."""
        if self.queue.remove(job):
            job.returned = True
            with self.lock:
                self.left[job.result.status.value] += 1
            if self.draining:
                self._after_job()

    def fit(self) -> None:
        """Start or retire workers after the settings were changed."""
        _step_back(self._settings().nice)
        with self.lock:
            wanted = self._settings().max_workers
            for _ in range(min(len(self.queue), wanted - len(self.workers))):
                self._start_worker()
            for _ in range(len(self.workers) - wanted):
                self._tokens.put(_RETIRE)

    def leave_hubs(self) -> None:
        """End the workers if some sleep in their hubs: a loop that turns while the interpreter ends can crash it."""
        if self._hubs:
            for _ in list(self.workers):
                self._tokens.put(_END)
        latest = monotonic() + LEAVE
        while self._hubs and monotonic() < latest:
            native.sleep(GRACE)

    def tally(self) -> dict[str, int]:
        """Jobs that have left, by outcome."""
        with self.lock:
            left = dict(self.left)
            for worker in (*self.workers, *self.lost):
                _add_up(left, worker)
            return left

    def at_work(self) -> list[tuple[Job, Worker, int]]:
        """What runs now: the job, its worker, and its number among the worker's jobs."""
        jobs = list(self.running)  # in one step: to make the pairs of `items` can start the collector
        found = [(job, worker, worker.taken) for job in jobs if (worker := self.running.get(job)) is not None]
        return [entry for entry in found if entry[0] in self.running]  # of the others the number may be the next job's

    def _make_room(self) -> None:
        """One more worker if there may be one; else somebody to look after stuck jobs."""
        with self.lock:
            wanted = self._settings().max_workers
            if len(self.workers) < wanted:
                self._start_worker()
                if len(self.workers) > wanted:  # a signal handler or a finalizer that submits came in between
                    self._tokens.put(_RETIRE)
            elif not self._watching:
                with suppress(RuntimeError):  # no more threads to be had: the next job that finds no room tries again
                    native.start_thread(self._watch, ())
                    self._watching = True

    def _start_worker(self) -> bool:
        """One more worker; False if there are no more threads to be had: those that are there do the work.

        Raises:
            NoThread: there are none, either.
        """
        worker = Worker()
        native_waits.share()  # jobs may use what gevent has patched
        try:
            native.start_thread(self._serve, (worker,))
        except RuntimeError as error:
            if not self.workers:
                raise NoThread from error
            return False
        self.workers.add(worker)  # now, since no other thread shall count on one that never starts
        return True

    # -- workers ----------------------------------------------------------------------------------------

    def _serve(self, worker: Worker) -> None:
        run_inline_here()
        _local.here = self.running, worker
        native.name_this_thread(worker.name)
        called = False  # this worker holds _call
        while not worker.lost:
            job = self.queue.take()
            if called:
                called = False
                self._call.release()
            elif job is None:
                called = self._sleep(worker)
            if job is not None:
                if self.queue.turns and self._call.acquire(False):
                    self._tokens.put(_STAND_BY)
                bridge, number = self._run(worker, job)
                del job  # before the ring: the hub's reference shall be the last
                if bridge is not None:
                    self._ring(bridge, number)
                    del bridge
                if not worker.taken & (worker.taken - 1):  # after 1, 2, 4, 8 jobs: the runtime starts threads in some
                    _step_back(self._settings().nice)
        if called:  # written off at the moment when it was called: another one shall look
            self._tokens.put(_CALL)
        self._end(worker)
        hub = get_hub_if_exists()
        if hub is not None:  # a job made it; it was kept for the next one, and keeps two descriptors
            take_down(hub)
            self._hubs.discard(hub)

    def _sleep(self, worker: Worker) -> bool:
        """Sleep until called; True if so."""
        self._ring_unrung()
        if (hub := get_hub_if_exists()) is not None:
            self._hubs.add(hub)
        token = self._tokens.get()
        if token is _RETIRE:
            self._retire(worker)
            return False
        if token is _END:
            worker.lost = True
            return False
        if token is _STAND_BY:
            self._stand_by()
        return True

    def _stand_by(self) -> None:
        """Sleep while the others get through the queue by themselves, and ring for them."""
        pause = native.allocate_lock()
        pause.acquire()
        self._standing_by = True
        while True:
            taken = self._taken()
            pause.acquire(True, GRACE)
            self._ring_unrung()
            if not self.queue.turns or self._taken() - taken < QUICK:
                break
        self._standing_by = False
        self._ring_unrung()  # after the flag: see _ring

    def _taken(self) -> int:
        return sum(worker.taken for worker in list(self.workers))

    def _run(self, worker: Worker, job: Job) -> tuple[Bridge | None, int]:
        worker.since = monotonic()
        worker.taken += 1
        self.running[job] = worker
        self.queue.let_go(job)
        job.run(worker.name)
        if not hasattr(_local, "here"):  # a child that the job has forked ends as with any thread that returns
            os._exit(0)
        bridge, number = job.come_back()
        result = job.result
        if result.successful():
            worker.done += 1
        elif result.cancelled():
            worker.cancelled += 1
        else:
            worker.failed += 1
        job.returned = True
        self.running.pop(job)
        if worker.lost:
            self._end(worker)
        if self.draining:
            self._after_job()
        result.wake()
        del job, result  # the frames of a failed job have this one as their caller: see Job.run
        return bridge, number

    def _ring(self, bridge: Bridge, number: int) -> None:
        bridge.rung.append(number)
        if self._standing_by and self.queue.turns:
            self._unrung.add(bridge)
            if self._standing_by:  # still: whoever stands by clears the flag first, and rings then
                return
        bridge.wake()

    def _ring_unrung(self) -> None:
        while self._unrung:
            with suppress(KeyError):  # another worker took the last one
                self._unrung.pop().wake()

    def _retire(self, worker: Worker) -> None:
        with self.lock:
            if len(self.workers) > self._settings().max_workers:
                worker.lost = True
                self._end(worker)

    def _end(self, worker: Worker) -> None:
        with self.lock:
            if worker in self.workers or worker in self.lost:
                self.workers.discard(worker)
                self.lost.discard(worker)
                _add_up(self.left, worker)

    # -- stuck jobs: a native thread while jobs queue ---------------------------------------------------

    def _watch(self) -> None:
        native.name_this_thread("greendata-watch")
        pause = native.allocate_lock()
        pause.acquire()
        while (seconds := self._write_off()) is not None:
            pause.acquire(True, seconds)

    def _write_off(self) -> float | None:
        """Replace stuck workers; seconds until the next look, None when nothing waits."""
        with self.lock:
            if not len(self.queue):
                self._watching = False
                return None
            settings, now = self._settings(), monotonic()
            busy = {w for job in list(self.running) if (w := self.running.get(job)) is not None and not w.lost}
            for worker in busy:
                is_stuck = now - worker.since >= settings.stuck_after and len(self.lost) < settings.max_workers
                if is_stuck and self._start_worker():  # written off once it is replaced, at this look or a later one
                    worker.lost = True
                    self.workers.discard(worker)
                    self.lost.add(worker)
            oldest = max((now - w.since for w in busy if not w.lost), default=0.0)
            return max(settings.stuck_after - oldest, settings.stuck_after / 10)


def _add_up(left: dict[str, int], worker: Worker) -> None:
    left["done"] += worker.done
    left["failed"] += worker.failed
    left["cancelled"] += worker.cancelled


def inline_on(*prefixes: str) -> None:
    """Have submits from native threads whose names begin so run inline.

    They are a library's own threads, where waiting for a worker would deadlock. `Settings.nice` is theirs.
    """
    global _runtime_threads
    _runtime_threads += prefixes


def is_inline_thread() -> bool:
    """True on a worker and on a runtime thread, where waiting for a worker would deadlock."""
    known: bool | None = getattr(_local, "inline", None)
    if known is None:
        name = native.this_thread_name()
        known = _is_runtime(native.get_native_id(), name) if name else get_hub_if_exists() is None
        _local.inline = known
    return known


def run_inline_here() -> None:
    """Have the calling thread run inline from now on."""
    _local.inline = True


def run_in_pool_here() -> None:
    """Have the calling thread use the pool, whatever its name."""
    _local.inline = False


def aside(func: Callable[[], object]) -> bool:
    """Run *func*, which may block and must not raise, in a native thread that ends with it; False if there is none.

    Only for what ends a job that runs: in the pool it would wait behind the job that it is to end.
    """
    try:
        native.start_thread(_aside, (func,))
    except RuntimeError:  # the system has no more threads to give
        return False
    return True


def _aside(func: Callable[[], object]) -> None:
    run_inline_here()
    native.name_this_thread("greendata-aside")
    func()


def job_here() -> Job | None:
    """The job that the calling thread, a worker, runs now; None on any other thread."""
    running, worker = getattr(_local, "here", ({}, None))
    return next((job for job in list(running) if running.get(job) is worker), None)


def _after_fork_in_child() -> None:
    """The thread that forked is the child's main thread, and no worker, also where a job has forked."""
    _local.__dict__.pop("here", None)
    run_in_pool_here()


def _is_runtime(thread: int, name: str) -> bool:
    return thread != os.getpid() and name.startswith(_runtime_threads)  # the main thread has the program's name


def _step_back(nice: int) -> None:
    """Have the scheduler prefer the hub's thread to the runtime's. Linux: nice is per thread.

    Not to the workers: one that holds the GIL and has to wait for a core holds up the hub as well, and a program that
    it starts would keep its priority.
    """
    if not nice or not (names := native.thread_names()):
        return
    level = min(19, os.getpriority(os.PRIO_PROCESS, os.getpid()) + nice)
    for thread in [thread for thread, name in names.items() if _is_runtime(thread, name)]:
        with suppress(OSError):  # it has ended meanwhile, or it is nicer already, which only root may take back
            os.setpriority(os.PRIO_PROCESS, thread, level)


never_turn_where(is_inline_thread)
os.register_at_fork(after_in_child=_after_fork_in_child)
