"""The crew: a pool's native threads, who of them works, and when the hub is woken.

Waking a sleeping thread costs more than a tiny query (some 40 us on an idle core of a virtual machine, against 15),
and two threads that want the GIL at once wake each other at every native call. So no more threads are awake than
are of use:

- Somebody who puts a job calls one worker, unless one is called already: a token waits, or a worker stands by. Whoever
  takes a token looks into the queue afterwards, and so does who stood by; no other state tells that somebody is called.
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
from functools import partial
from itertools import count
from time import monotonic
from traceback import clear_frames
from typing import Any, cast
from weakref import WeakSet

from gevent.threading import main_native_thread  # type: ignore[import-not-found]

from greendata.errors import NoThread, PoolClosed, WorkerLost
from greendata.hub import native
from greendata.hub.hubs import take_down
from greendata.hub.waker import HubWaker
from greendata.internals.gevent import get_hub_if_exists
from greendata.pool.fair_queue import FairQueue
from greendata.pool.job import Job
from greendata.pool.settings import Settings
from greendata.threads import sharing
from greendata.threads.locks import SimpleQueue
from greendata.threads.parking import treat_as_idle_unless, treat_hubs_as_stopped_where

__all__ = (
    "Worker",
    "Workers",
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

_CALL, _STAND_BY, _END = "call", "stand by", "end"
_STACK = 20_480  # bytes; what greenlets keep of a stack at a switch is some pages
_OBJECTS = range(1000, 1010)  # numbers above 256 are objects of their own
_LOOK = 1.0  # seconds until what waits is looked at again; a call that got lost costs no more
_AGAIN = 0.01  # seconds until a worker that could not go on tries again; a guess

_runtime_threads: tuple[str, ...] = ()  # name prefixes; written at import, see inline_on
_local = native.Local()
_names = count()


class Worker:
    """One native thread and what it counts; the thread writes, any thread reads."""

    __slots__ = (
        "has_ended",
        "has_left",
        "job",
        "left",
        "lost",
        "name",
        "number",
        "since",
        "taken",
        "thread",
        "waker",
    )

    def __init__(self) -> None:
        self.name = f"greendata-{next(_names)}"
        self.job: Job | None = None  # what it runs
        self.since = 0.0  # when that began
        self.taken = 0  # jobs
        self.left = {"done": 0, "failed": 0, "cancelled": 0}  # jobs by outcome
        self.waker: HubWaker | None = None  # whom it is to ring, and for what; the thread's own
        self.number = 0
        self.lost = False  # it ends after its job: written off, or one too many; under the crew's lock
        self.has_ended = False  # it takes no more jobs, and its own are counted; under the crew's lock
        self.has_left = False  # its thread has come to its end by itself; the thread writes
        self.thread: object = None  # while this is kept, the end of the thread is noticed; who starts it, and itself


class _Watch:
    """One thread that looks after stuck jobs."""

    __slots__ = ("has_ended", "poke", "thread")

    def __init__(self) -> None:
        self.has_ended = False  # the thread writes, or who notices its end
        self.thread: object = None  # as that of a worker
        self.poke = native.SimpleQueue[None]()  # any thread puts, to have it look at once


class Workers:
    """The threads that take jobs from a queue.

    Args:
        settings: those in force until the pool replaces them.
        after_job: called after each job that leaves a draining pool, when the counters are right.
    """

    def __init__(self, settings: Settings, after_job: Callable[[], None]) -> None:
        self.queue: FairQueue[Job] = FairQueue()
        self.running = cast("dict[Worker, Job]", self.queue.taken)  # by worker, which alone writes its entry
        self.settings = settings  # replaced as a whole by the pool, any thread reads
        self._after_job = after_job
        self.draining = False  # after_job is to be called; the pool writes, workers read
        # Where workers sleep, and let their hubs turn; any thread puts. One in it: somebody is called.
        self._tokens = SimpleQueue()
        self._hubs: set[Any] = set()  # in which workers sleep; they add and discard
        self._standing_by: Worker | None = None  # that does; it writes, any thread reads
        self._unrung: set[HubWaker] = set()  # workers add and pop
        self._watch: _Watch | None = None  # the last one that was started; any thread
        self.faults = 0  # turns of workers that ended in an error outside a job's function; workers
        self.lock = native.RLock()  # guards all below, and is never taken by a submit
        self.workers: set[Worker] = set()  # but whoever starts one adds it
        self.lost: set[Worker] = set()  # written off, and their jobs have not returned
        self.left = {"done": 0, "failed": 0, "cancelled": 0}  # jobs of workers that ended, and of none
        _crews.add(self)

    # -- any thread -------------------------------------------------------------------------------------

    def put(self, job: Job) -> None:
        """Queue *job*. Never blocks, and takes no lock: a signal handler may raise at any step, see `take_back`.

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
        self._call(_CALL)

    def take_back(self, job: Job) -> bool:
        """Undo a `put` that was interrupted, or never came to it; False if a worker has the job, or had it."""
        self._tokens.remind()
        return self.queue.remove(job) or not (job.returned or self.holds(job))

    def holds(self, job: Job) -> bool:
        """True if *job* waits or runs; it is in the one list before it leaves the other."""
        return job in self.queue.waiting or any(held is job for held in list(self.running.values()))

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
        _step_back(self.settings.nice)
        with self.lock:
            wanted = self.settings.max_workers
            for _ in range(min(len(self.queue), wanted - len(self.workers))):
                self._start_worker()
            for _ in range(len(self.workers) - wanted):
                self._tokens.put(_CALL)  # those that work find it out by themselves
        if self._watch is not None:
            self._watch.poke.put(None)

    def mend(self) -> None:
        """Have what waits found and taken, though signal handlers interrupted those that put it."""
        self.queue.mend()
        if self.queue.turns:  # else nobody is woken: an exiting process has no use for a worker's hub
            self._tokens.remind()
            self._call(_CALL)

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
            parts = [self.left, *(worker.left for worker in (*self.workers, *self.lost))]
            return {status: sum(part[status] for part in parts) for status in self.left}

    def at_work(self) -> list[tuple[Job, Worker, int]]:
        """What runs now: the job, its worker, and its number among the worker's jobs."""
        workers = {*self.workers, *self.lost}  # one that is written off now is in both
        found = [(job, worker, worker.taken) for worker in workers if (job := worker.job) is not None]
        return [entry for entry in found if entry[1].job is entry[0]]  # of the others the number may be the next job's

    def _call(self, token: str) -> None:
        """Wake a worker, unless one is called already. It looks into the queue after it has taken the token."""
        if self._tokens.empty() and not self._standing_by:
            self._tokens.put(token)

    def _make_room(self) -> None:
        """One more worker if there may be one; else somebody to look after stuck jobs."""
        if len(self.workers) < self.settings.max_workers:
            self._start_worker()
        elif self._watch is None or self._watch.has_ended:
            watch = _Watch()
            with suppress(RuntimeError):  # no more threads to be had: the next job that finds no room tries again
                on_end = partial(self._lose_watch, watch)
                watch.thread = native.start_thread_watched(partial(self._look_after, watch), on_end)
                self._watch = watch

    def _start_worker(self) -> bool:
        """One more worker; False if there are no more threads to be had: those that are there do the work.

        Of two threads that start one at once each may do so; a worker that is one too many ends before it takes a job.

        Raises:
            NoThread: there are none, either.
        """
        worker = Worker()
        sharing.share()  # jobs may use what gevent has patched
        try:
            on_end = partial(self._lose_worker, worker)
            worker.thread = native.start_thread_watched(partial(self._serve, worker), on_end)
        except RuntimeError as error:
            if not self.workers:
                raise NoThread from error
            return False
        self.workers.add(worker)  # as the thread does when it begins: until then no other shall be started for this job
        if worker.has_ended:
            self.workers.discard(worker)
        return True

    # -- workers ----------------------------------------------------------------------------------------

    def _serve(self, worker: Worker) -> None:
        try:
            while not worker.lost:
                try:
                    self._begin(worker)
                    self._work(worker)
                except BaseException as error:  # noqa: BLE001 - whatever it is, it ends a turn and no thread
                    self.faults += 1
                    while not self._put_right(worker, error):
                        native.sleep(_AGAIN)
        finally:
            hub = get_hub_if_exists()
            if hub is not None:  # a job made it; it was kept for the next one, and keeps two descriptors
                take_down(hub)
                self._hubs.discard(hub)
        self._leave(worker)
        worker.has_left = True
        worker.thread = None  # nobody has to notice its end

    def _begin(self, worker: Worker) -> None:
        run_inline_here()
        _local.worker = worker
        with self.lock:
            self.workers.add(worker)
        native.name_this_thread(worker.name)

    def _work(self, worker: Worker) -> None:
        while not worker.lost:
            if len(self.workers) > self.settings.max_workers:
                self._retire(worker)
                continue
            job = self.queue.take(worker)
            if job is None:
                if self.draining:
                    self._after_job()  # it was about to take one that was given up meanwhile
                self._sleep(worker)
                continue
            if self.queue.turns:
                self._call(_STAND_BY)
            self._run(worker, job)
            del job  # before the ring: the hub's reference shall be the last
            self._ring(worker)
            if not worker.taken & (worker.taken - 1):  # after 1, 2, 4, 8 jobs: the runtime starts threads in some
                _step_back(self.settings.nice)

    def _sleep(self, worker: Worker) -> None:
        """Sleep until called."""
        self._ring_unrung()
        if (hub := get_hub_if_exists()) is not None:
            self._hubs.add(hub)
        token = self._tokens.get()
        if token is _END:
            worker.lost = True
        elif token is _STAND_BY:
            self._stand_by(worker)

    def _stand_by(self, worker: Worker) -> None:
        """Sleep while the others get through the queue by themselves, and ring for them."""
        pause = native.allocate_lock()
        pause.acquire()
        try:
            self._standing_by = worker
            while True:
                taken = self._taken()
                pause.acquire(True, GRACE)
                self._ring_unrung()
                if not self.queue.turns or self._taken() - taken < QUICK:
                    break
        finally:
            self._stand_down(worker)

    def _stand_down(self, worker: Worker) -> None:
        if self._standing_by is worker:
            self._standing_by = None
        self._ring_unrung()  # after the flag: see _ring

    def _taken(self) -> int:
        return sum(worker.taken for worker in list(self.workers))

    def _run(self, worker: Worker, job: Job) -> None:
        worker.since = monotonic()
        worker.taken += 1
        worker.job = job
        job.run(worker.name)
        if not hasattr(_local, "worker"):  # a child that the job has forked ends as with any thread that returns
            os._exit(0)
        _ask_for_memory()
        worker.waker, worker.number = job.come_back()
        self._let_go(worker, job)
        del job  # the frames of a failed job have this one as their caller: see Job.run

    def _let_go(self, worker: Worker, job: Job) -> None:
        """*job* has returned. Each step may be done again, if the one after it fails."""
        result = job.result
        if not job.returned:
            status = result.status.value
            worker.left[status] += 1  # an exception may be raised after a call, and so not between these two
            job.returned = True
        self.queue.let_go(worker)
        if worker.lost:
            self._end(worker)
        if self.draining:
            self._after_job()
        result.wake()
        worker.job = None  # last: as long as it has the job, all these steps are done again

    def _put_right(self, worker: Worker, error: BaseException) -> bool:
        """End the turn of *worker* that *error* ended: its job fails with it. False if even that fails, for now."""
        try:
            self._stand_down(worker)
            job = worker.job or self._held_by(worker)
            if job is None:
                self.queue.let_go(worker)
                native.sleep(_AGAIN)  # for what is the matter to pass: the next turn may end like this one
            else:
                clear_frames(error.__traceback__)  # those of this turn know the job: no cycle through its error
                job.fail(error)
                worker.waker, worker.number = job.come_back()
                self._let_go(worker, job)
            self._ring(worker)
        except BaseException:  # noqa: BLE001 - no memory even for that: it comes back, or the process ends
            return False
        return True

    def _held_by(self, worker: Worker) -> Job | None:
        """The job that *worker* has taken and not begun."""
        job = self.running.get(worker)
        if job is None or job.returned or job in self.queue.waiting:
            return None
        others = [other for other in list(self.running) if other is not worker]
        return None if any(self.running.get(other) is job for other in others) else job

    def _ring(self, worker: Worker) -> None:
        waker = worker.waker
        if waker is None:
            return
        waker.pending.append(worker.number)
        if self._standing_by and self.queue.turns:
            self._unrung.add(waker)
            if self._standing_by:  # still: whoever stands by clears the flag first, and rings then
                worker.waker = None
                return
        waker.wake()
        worker.waker = None

    def _ring_unrung(self) -> None:
        while self._unrung:
            with suppress(KeyError):  # another worker took the last one
                self._unrung.pop().wake()

    def _retire(self, worker: Worker) -> None:
        with self.lock:
            if len(self.workers) > self.settings.max_workers:
                self._end(worker)

    def _lose_worker(self, worker: Worker) -> None:
        """The thread of *worker* has ended: exceptions were raised in it where none is caught. Called in a new one."""
        if worker.has_left:  # who started it keeps its thread too, in the frames of an error
            return
        self.faults += 1
        while not self._put_right(worker, WorkerLost(worker.name)):
            native.sleep(_AGAIN)
        self._leave(worker)

    def _leave(self, worker: Worker) -> None:
        """*worker* is at its end. It may have been called, so another goes on in its place."""
        self._end(worker)
        if len(self.queue):
            with suppress(NoThread):
                self._make_room()
            self._call(_CALL)

    def _end(self, worker: Worker) -> None:
        with self.lock:
            if not worker.has_ended:
                left, more = self.left, worker.left
                left["done"] += more["done"]  # no call from here on, as in `_let_go`
                left["failed"] += more["failed"]
                left["cancelled"] += more["cancelled"]
            worker.lost = worker.has_ended = True
            self.workers.discard(worker)
            self.lost.discard(worker)

    # -- stuck jobs: a native thread while jobs queue ---------------------------------------------------

    def _look_after(self, watch: _Watch) -> None:
        native.name_this_thread("greendata-watch")
        while not watch.has_ended:
            try:
                seconds = self._write_off()
            except BaseException:  # noqa: BLE001 - no memory, say; it comes back, or the process ends
                self.faults += 1
                seconds = _AGAIN
            if seconds is not None:
                with suppress(native.Empty):
                    watch.poke.get(timeout=min(seconds, _LOOK))
                continue
            watch.has_ended = True
            if len(self.queue):  # looked at after; whoever puts does it the other way round
                watch.has_ended = False
        watch.thread = None

    def _lose_watch(self, watch: _Watch) -> None:
        """The thread of *watch* has ended before its time, as that of a worker may. Called in a new one."""
        watch.has_ended = True
        if len(self.queue):
            self._make_room()

    def _write_off(self) -> float | None:
        """Replace stuck workers; seconds until the next look, None when nothing waits."""
        with self.lock:
            if not len(self.queue):
                return None
            self.mend()
            settings, now = self.settings, monotonic()
            busy = [worker for worker in list(self.workers) if worker.job is not None]
            for worker in busy:
                is_stuck = now - worker.since >= settings.stuck_after and len(self.lost) < settings.max_workers
                if is_stuck and not worker.lost:  # written off once it is replaced, at this look or a later one
                    worker.lost = self._start_worker()
                if worker.lost:  # perhaps since the last look, which was interrupted here
                    self.lost.add(worker)
                    self.workers.discard(worker)
            if len(self.workers) < settings.max_workers:  # what was started then may have found itself one too many
                self._start_worker()
            oldest = max((now - w.since for w in busy if not w.lost), default=0.0)
        return max(settings.stuck_after - oldest, settings.stuck_after / 10)


def _ask_for_memory() -> None:
    """Raise MemoryError where there is none, which a worker survives: greenlet ends the process if a switch finds none.

    So the hub is not woken before some can be had. It costs a third of a microsecond.
    """
    bytearray(_STACK)  # the system's memory
    list(_OBJECTS)  # Python's own


def inline_on(*prefixes: str) -> None:
    """Have submits from native threads whose names begin so run inline.

    They are a library's own threads, where waiting for a worker would deadlock. `Settings.nice` is theirs.
    """
    global _runtime_threads
    _runtime_threads += prefixes


def is_inline_thread() -> bool:
    """True on a worker and on a runtime thread, where waiting for a worker would deadlock."""
    known: bool | None = getattr(_local, "inline", None)
    if known is not None:
        return known
    name = native.this_thread_name()
    if not name or (name.startswith(_runtime_threads) and name == native.program_name()):
        # The system tells no names, or the program's own, which its threads inherit, is like the runtime's. Whether
        # there is a hub may change: the next call looks again.
        return native.get_ident() != main_native_thread().ident and get_hub_if_exists() is None
    known = _local.inline = _is_runtime(native.get_native_id(), name)
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
    worker: Worker | None = getattr(_local, "worker", None)
    return None if worker is None else worker.job


def _after_fork_in_child() -> None:
    """The thread that forked is the child's main thread, and no worker, also where a job has forked."""
    _local.__dict__.pop("worker", None)
    _crews.clear()
    run_in_pool_here()


def _is_runtime(thread: int, name: str) -> bool:
    # The main thread has the program's name, and threads that nobody named inherit it.
    return thread != os.getpid() and name.startswith(_runtime_threads) and name != native.program_name()


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


def _are_busy() -> bool:
    return any(len(crew.queue) or crew.running for crew in list(_crews))


_crews: WeakSet[Workers] = WeakSet()  # any thread adds
treat_hubs_as_stopped_where(is_inline_thread)
treat_as_idle_unless(_are_busy, Workers._serve, Workers._look_after)
os.register_at_fork(after_in_child=_after_fork_in_child)
