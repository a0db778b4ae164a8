"""`Workers`: the native threads of a pool, how many of them are awake, and when they wake the hub.

Waking a sleeping thread costs more than a tiny query: some 40 us on an idle core of a virtual machine, against 15 us.
Two threads that want the GIL at the same time also wake each other at every native call. So only as many threads are
awake as are useful:

- A thread that puts a job wakes one worker, unless a wakeup is pending already: a token waits in the token queue, or a
  worker is on standby. A worker looks into the queue after it has taken a token, and so does the standby worker when
  it ends its standby. There is no other record of pending wakeups.
- A worker that takes a job while others wait puts a second worker on *standby*. The standby worker sleeps for
  `STANDBY_INTERVAL` and looks: if the others finished `QUICK_JOBS` jobs meanwhile, it sleeps again; otherwise it takes
  a job itself, and puts the next worker on standby. So long queries run in parallel half a millisecond after they were
  submitted, and tiny ones run one after the other on a thread that is awake.
- While a worker is on standby, a worker that has more jobs to run only records which hub has to be woken, and continues
  with its next job. The standby worker wakes these hubs. That delays an outcome by half a millisecond at most.

   submitting thread            worker                            standby worker
   -----------------            ------                            --------------
   queue.put(job)
   token "wake"      ------->   takes a job; more are waiting:
                                token "standby"       -------->   sleeps STANDBY_INTERVAL
                                runs the job, records the hub
                                runs the next one ...             wakes the recorded hubs
                                                                  fewer than QUICK_JOBS done? takes a job

The numbers are guesses that measurements support: tests/bench/tiny.py. With 200 tiny queries at once on two cores, a
query takes 44 us with the standby worker, and 59 us where a worker that leaves jobs behind wakes the next one at once:
0.53 and 0.69 times what gevent's ThreadPool takes. One query after the other takes the same with and without.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from functools import partial
from itertools import count
from math import inf
from time import monotonic
from traceback import clear_frames
from typing import Any, cast
from weakref import WeakSet

from gevent.threading import main_native_thread  # type: ignore[import-not-found]
from greenlet import getcurrent, greenlet

from greendata.errors import NoThread, PoolClosed, WorkerLost
from greendata.hub import native
from greendata.hub.contexts import contextmanager
from greendata.hub.hubs import destroy_hub, is_libuv
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
    "blocked",
    "elsewhere",
    "is_inline_thread",
    "job_of_this_worker",
    "register_inline_threads",
    "run_in_new_thread",
    "run_in_pool_here",
    "run_inline_here",
)

STANDBY_INTERVAL = 0.0005  # seconds between two looks of the standby worker
QUICK_JOBS = 4  # jobs in a STANDBY_INTERVAL, 125 us each: at this rate no second thread is needed

AWAY_AFTER = 0.02  # seconds that a worker waits for another process, until another worker may take its place
BLOCKED_AFTER = 0.1  # the same for one that waits for another thread; a lock that others use is usually free sooner
MOST_AWAY = 200  # workers whose place was taken: each is a sleeping thread of some 100 kB

HUB_CLOSE_TIMEOUT = 1.0  # seconds that an exiting process waits for the hubs of workers; it takes milliseconds

_WAKE, _STANDBY, _END = "wake", "standby", "end"
_STACK = 20_480  # bytes; greenlet saves a few pages of the stack at a switch
_OBJECTS = range(1000, 1010)  # each number above 256 is a new object
_WATCH_INTERVAL = 1.0  # seconds between two looks at waiting jobs: the longest delay after a lost wakeup
_AWAY_INTERVAL = 0.05  # the same, in a process whose jobs wait for other processes or threads
_LOOK_INTERVAL = 1.0  # seconds between two looks at the names of all threads, which take 0.5 ms
_RETRY_DELAY = 0.01  # seconds until a worker retries what failed; a guess

_has_been_away = False  # any thread sets it
_runtime_threads: tuple[str, ...] = ()  # name prefixes; written at import, see register_inline_threads
_local = native.Local()
_names = count()


class Worker:
    """One native thread and its counters. The thread writes, any thread reads."""

    __slots__ = (
        "away_at",
        "finished",
        "greenlet",
        "has_ended",
        "has_exited",
        "held",
        "job",
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
        self.job: Job | None = None  # the job that it runs
        self.since = 0.0  # when that job began, on time.monotonic's clock
        self.away_at: float | None = None  # while its job waits: when it no longer counts, on the same clock
        self.held = 0  # the id of the job that it runs, until it has dropped its references and tells the hub
        self.taken = 0  # number of jobs taken
        self.finished = {"done": 0, "failed": 0, "cancelled": 0}  # number of jobs by outcome
        self.greenlet: greenlet | None = None  # that runs its jobs; used by its own thread only
        self.waker: HubWaker | None = None  # the hub to notify, with `number`; used by the worker's own thread only
        self.number = 0
        self.lost = False  # it ends after its job: stuck or surplus; under the lock of Workers
        self.has_ended = False  # takes no more jobs; its counters are added up; under the lock of Workers
        self.has_exited = False  # its thread ended normally; the thread writes
        self.thread: object = None  # a reference that keeps `on_end` armed; written by the starter and the thread


class _StuckWatch:
    """The thread that replaces workers with stuck jobs while jobs wait."""

    __slots__ = ("has_ended", "poke", "thread")

    def __init__(self) -> None:
        self.has_ended = False  # written by the thread, or by the callback for its end
        self.thread: object = None  # as in Worker
        self.poke = native.SimpleQueue[None]()  # any thread puts, to make it look at once


class Workers:
    """The worker threads of one pool, and the queue from which they take jobs.

    Args:
        settings: the settings in force until the pool replaces them.
        after_job: called after each job that leaves a draining pool, when the counters are up to date.
    """

    def __init__(self, settings: Settings, after_job: Callable[[], None]) -> None:
        self.queue: FairQueue[Job] = FairQueue()
        self.running = cast("dict[Worker, Job]", self.queue.taken)  # each worker writes its own entry only
        self.settings = settings  # replaced as a whole by the pool; any thread reads
        self._after_job = after_job
        self.draining = False  # whether to call after_job; the pool writes, workers read
        # Workers sleep on it while their hubs run; any thread puts. A token in it means that a wakeup is pending.
        self._tokens = SimpleQueue()
        self._hubs: set[Any] = set()  # hubs in which workers sleep; workers add and discard
        self._standby: Worker | None = None  # the worker on standby; it writes, any thread reads
        self._deferred: set[HubWaker] = set()  # hubs that the standby worker will wake; workers add and pop
        self._watch: _StuckWatch | None = None  # the one started last; any thread
        self._next_look = 0.0  # when a worker next looks for new threads of the runtime, on time.monotonic's clock
        self.faults = 0  # errors on workers outside a job's function; workers add
        self.lock = native.RLock()  # guards everything below; never taken by a submit
        self.workers: set[Worker] = set()  # except that the thread that starts a worker adds it without the lock
        self.lost: set[Worker] = set()  # replaced because they are stuck; their jobs have not returned
        self.away: set[Worker] = set()  # replaced while they wait; they will be back
        self.finished = {"done": 0, "failed": 0, "cancelled": 0}  # of workers that have ended, and jobs that never ran
        _all_workers.add(self)

    # -- any thread -------------------------------------------------------------------------------------

    def put(self, job: Job) -> None:
        """Queue *job*. Never blocks and takes no lock. A signal handler may raise at any step: see `undo_put`.

        Raises:
            NoThread: there is no worker and none can be started. The job is in the queue nevertheless.
            PoolClosed: the pool is being drained. The job is in the queue nevertheless.
        """
        # The job is queued first: the watch ends when nothing waits, and of two threads that submit at the same time
        # the second must see that there are more jobs than workers.
        self.queue.put(job.key, job)
        if self.draining:  # checked after the job is queued; `drain` sets the flag and then looks into the queue
            raise PoolClosed
        if len(self.queue.waiting) + len(self.running) - len(self.away) > len(self.workers) or self.lost:
            self._add_worker_or_watch()
        self._notify_one(_WAKE)

    def undo_put(self, job: Job) -> bool:
        """Undo an interrupted `put`, however far it got; return False if a worker has or had the job."""
        return self.queue.remove(job) or not (job.returned or self.holds(job))

    def holds(self, job: Job) -> bool:
        """Return True if *job* waits or runs. It is added to the one container before it leaves the other."""
        return job in self.queue.waiting or any(held is job for held in list(self.running.values()))

    def remove(self, job: Job) -> None:
        """Remove *job*, whose result is settled, from the queue if it is there; if it runs, stop it if possible."""
        if (stopper := job.stopper) is not None:
            stopper.stop()
        elif self.queue.remove(job):
            job.returned = True
            with self.lock:
                self.finished[job.result.status.value] += 1
            if self.draining:
                self._after_job()

    def resize(self) -> None:
        """Start or retire workers after a change of the settings."""
        self._lower_priority()
        with self.lock:
            wanted = self.settings.max_workers
            for _ in range(min(len(self.queue), wanted - len(self.workers))):
                self._start_worker()
            for _ in range(len(self.workers) - wanted):
                self._tokens.put(_WAKE)  # busy workers check after their job
        if self._watch is not None:
            self._watch.poke.put(None)

    def repair(self) -> None:
        """Restore the order of the waiting jobs and wake a worker, after signal handlers interrupted a `put`."""
        self.queue.repair()
        if self.queue.rotation:  # otherwise wake no worker: in an exiting process its hub must not run
            self._notify_one(_WAKE)

    def close_hubs(self) -> None:
        """End the workers if some sleep in their hubs: a loop that runs at finalization can crash Python."""
        if self._hubs:
            for _ in list(self.workers):
                self._tokens.put(_END)
        latest = monotonic() + HUB_CLOSE_TIMEOUT
        while self._hubs and monotonic() < latest:
            native.sleep(STANDBY_INTERVAL)

    def tally(self) -> dict[str, int]:
        """Return the number of jobs that have left, by outcome."""
        with self.lock:
            parts = [self.finished, *(worker.finished for worker in (*self.workers, *self.lost, *self.away))]
            return {status: sum(part[status] for part in parts) for status in self.finished}

    def running_jobs(self) -> list[tuple[Job, Worker, int]]:
        """Return what runs now: each job, its worker, and its number among the worker's jobs."""
        workers = {*self.workers, *self.lost, *self.away}  # a worker that is being replaced is in two of them
        found = [(job, worker, worker.taken) for worker in workers if (job := worker.job) is not None]
        # If the worker has another job by now, the number may be that one's. A job that has returned is still the
        # worker's while it notifies the waiters.
        return [(job, worker, number) for job, worker, number in found if worker.job is job and not job.returned]

    def _notify_one(self, token: str) -> None:
        """Wake a worker unless a wakeup is pending. It looks into the queue after it has taken the token."""
        if self._tokens.empty() and not self._standby:
            self._tokens.put(token)

    def _add_worker_or_watch(self) -> None:
        """Start a worker if the settings allow another one; otherwise start the watch for stuck jobs."""
        if len(self.workers) < self.settings.max_workers:
            self._start_worker()
        elif self._watch is None or self._watch.has_ended:
            watch = _StuckWatch()
            with suppress(RuntimeError):  # no more threads available: the next job that has to wait tries again
                on_end = partial(self._on_watch_end, watch)
                watch.thread = native.start_thread_watched(partial(self._watch_stuck, watch), on_end)
                self._watch = watch

    def _start_worker(self) -> bool:
        """Start a worker. Return False if the system has no more threads and the existing workers must do.

        Two threads may each start one at the same time. A surplus worker ends before it takes a job.

        Raises:
            NoThread: the system has no more threads, and there is no worker.
        """
        worker = Worker()
        sharing.share()  # jobs may use locks and queues that gevent has patched
        try:
            on_end = partial(self._on_worker_end, worker)
            worker.thread = native.start_thread_watched(partial(self._serve, worker), on_end)
        except RuntimeError as error:
            if not self.workers:
                raise NoThread from error
            return False
        self.workers.add(worker)  # the thread adds itself too; added here so that no second one is started for this job
        if worker.has_ended:
            self.workers.discard(worker)
        return True

    # -- workers ----------------------------------------------------------------------------------------

    def _serve(self, worker: Worker) -> None:
        try:
            while not worker.lost:
                try:
                    self._begin(worker)
                    while not worker.lost:
                        if (hub := get_hub_if_exists()) is None:
                            self._work(worker)
                        else:
                            _call_in_greenlet(hub, partial(self._work, worker))
                except BaseException as error:  # noqa: BLE001 - no error may end the thread
                    self.faults += 1
                    while not self._recover(worker, error):
                        native.sleep(_RETRY_DELAY)
        finally:
            worker.greenlet = None  # greenlet searches all objects, with the GIL, for references that outlive a thread
            hub = get_hub_if_exists()
            if hub is not None:  # made by a job and kept for the next one; it has two descriptors
                destroy_hub(hub)
                self._hubs.discard(hub)
        self._replace(worker)
        worker.has_exited = True
        worker.thread = None  # disarm `on_end`

    def _begin(self, worker: Worker) -> None:
        run_inline_here()
        _local.worker = worker
        with self.lock:
            self.workers.add(worker)
        native.name_this_thread(worker.name)
        # The workers keep the default scheduling policy. SCHED_BATCH saves tiny queries that run one after the other a
        # seventh of their CPU time, but beside eight heavy queries the p99 of the hub's tick is 3.7 ms with it and 2.0
        # ms without: a hub that is asked for the GIL waits until the worker, which then wakes late, has taken it.

    def _work(self, worker: Worker) -> None:
        """Run jobs until *worker* is to end, or until a job has left something in a hub: see `_call_in_greenlet`."""
        worker.greenlet = getcurrent()
        while not worker.lost:
            if self.away and worker in self.away:
                self._return(worker)
            if len(self.workers) > self.settings.max_workers:
                self._retire(worker)
                continue
            job = self.queue.take(worker)
            if job is None:
                if self.draining:
                    self._after_job()  # it was about to take a job that has been cancelled meanwhile
                self._sleep(worker)
                continue
            if self.queue.rotation:
                self._notify_one(_STANDBY)
            self._run(worker, job)
            del job  # before the notification: the hub must drop the last reference
            self._notify_hub(worker)
            if worker.since >= self._next_look:  # the runtime may have started threads
                self._next_look = worker.since + _LOOK_INTERVAL
                self._lower_priority()
            if (hub := get_hub_if_exists()) is not None and (
                hub.loop.activecnt or is_libuv(hub.loop)
            ):  # it has no count
                return

    def _lower_priority(self) -> None:
        """Give the runtime's threads the priority that the settings ask for.

        Workers and `configure` do so at the same time. One that was interrupted between reading the setting and
        writing the priorities would overwrite a newer value, so each reads the setting again afterwards.
        """
        nice = -1
        while nice != (nice := self.settings.nice):
            _lower_priority_of_runtime(nice)

    def _sleep(self, worker: Worker) -> None:
        """Sleep until a token arrives, and act on it."""
        self._wake_deferred()
        if (hub := get_hub_if_exists()) is not None:
            self._hubs.add(hub)
        token = self._tokens.get()
        if token is _END:
            worker.lost = True
        elif token is _STANDBY:
            self._run_standby(worker)

    def _run_standby(self, worker: Worker) -> None:
        """Sleep while the other workers keep up with the queue, and wake the hubs that they have recorded."""
        try:
            self._standby = worker
            while True:
                taken = self._taken()
                native.sleep(STANDBY_INTERVAL)
                self._wake_deferred()
                if not self.queue.rotation or self._taken() - taken < QUICK_JOBS:
                    break
        finally:
            self._end_standby(worker)

    def _end_standby(self, worker: Worker) -> None:
        if self._standby is worker:
            self._standby = None
        self._wake_deferred()  # after the flag: see _notify_hub

    def _taken(self) -> int:
        return sum(worker.taken for worker in list(self.workers))

    def _run(self, worker: Worker, job: Job) -> None:
        worker.since = monotonic()
        worker.taken += 1
        worker.job = job
        worker.held = id(job)
        job.holder = worker
        job.run(worker.name)
        if not hasattr(_local, "worker"):  # a child that the job has forked: it ends here, as with any other thread
            os._exit(0)
        _check_memory()
        worker.waker, worker.number = job.notification_target()
        self._finish_job(worker, job)
        del job  # the frames of a failed job have this one as their caller: see Job.run

    def _finish_job(self, worker: Worker, job: Job) -> None:
        """Do the accounting for a job that has returned. If a step fails, all steps are repeated; that is harmless."""
        result = job.result
        if not job.returned:
            status = result.status.value
            worker.finished[status] += 1  # no call follows, so no exception can come between these lines
            job.returned = True
        self.queue.release(worker)
        if worker.lost:
            self._end(worker)
        if self.draining:
            self._after_job()
        result.wake()
        worker.job = None  # last: while it is set, `_recover` repeats the steps above

    def _recover(self, worker: Worker, error: BaseException) -> bool:
        """Fail the job of *worker* with *error*, which ended its step. Return False if that fails too: retry later."""
        try:
            self._end_standby(worker)
            job = worker.job or self._taken_job_of(worker)
            if job is None:
                self.queue.release(worker)
                native.sleep(_RETRY_DELAY)  # let the condition pass: the next step may fail in the same way
            else:
                clear_frames(error.__traceback__)  # its frames refer to the job: avoid a cycle through the job's error
                job.fail(error)
                worker.waker, worker.number = job.notification_target()
                self._finish_job(worker, job)
            del job
            self._notify_hub(worker)
        except BaseException:  # noqa: BLE001 - for example MemoryError: the caller tries again
            return False
        return True

    def _taken_job_of(self, worker: Worker) -> Job | None:
        """Return the job that *worker* has taken and not begun, or None."""
        job = self.running.get(worker)
        if job is None or job.returned or job in self.queue.waiting:
            return None
        others = [other for other in list(self.running) if other is not worker]
        return None if any(self.running.get(other) is job for other in others) else job

    def _notify_hub(self, worker: Worker) -> None:
        """Notify the hub of the job that *worker* has finished, or leave the wakeup to the standby worker."""
        worker.held = 0
        waker = worker.waker
        if waker is None:
            return
        waker.pending.append(worker.number)
        if self._standby and self.queue.rotation:
            self._deferred.add(waker)
            if self._standby:  # checked again: the standby worker clears it before it wakes the recorded hubs
                worker.waker = None
                return
        waker.wake()
        worker.waker = None

    def _wake_deferred(self) -> None:
        while self._deferred:
            with suppress(KeyError):  # another worker popped the last one
                self._deferred.pop().wake()

    def _retire(self, worker: Worker) -> None:
        with self.lock:
            if len(self.workers) > self.settings.max_workers:
                self._end(worker)

    def _return(self, worker: Worker) -> None:
        """Count *worker* again. If there are too many then, it ends."""
        with self.lock:
            if not worker.lost:
                self.workers.add(worker)
            self.away.discard(worker)

    def _on_worker_end(self, worker: Worker) -> None:
        """Clean up after the thread of *worker* ended by an exception outside all handlers. Called in a new thread."""
        if worker.has_exited:  # the frames of an error in the starting thread may have kept `thread` alive
            return
        self.faults += 1
        while not self._recover(worker, WorkerLost(worker.name)):
            native.sleep(_RETRY_DELAY)
        self._replace(worker)

    def _replace(self, worker: Worker) -> None:
        """End *worker*, and wake another one if jobs wait: *worker* may have consumed the pending wakeup."""
        self._end(worker)
        if len(self.queue):
            with suppress(NoThread):
                self._add_worker_or_watch()
            self._notify_one(_WAKE)

    def _end(self, worker: Worker) -> None:
        """Add the counters of *worker* to the totals and remove it. Idempotent."""
        with self.lock:
            if not worker.has_ended:
                total, own = self.finished, worker.finished
                total["done"] += own["done"]  # no call follows, as in `_finish_job`
                total["failed"] += own["failed"]
                total["cancelled"] += own["cancelled"]
            worker.lost = worker.has_ended = True
            self.workers.discard(worker)
            self.lost.discard(worker)
            self.away.discard(worker)

    # -- stuck jobs: a native thread while jobs queue ---------------------------------------------------

    def _watch_stuck(self, watch: _StuckWatch) -> None:
        native.name_this_thread("greendata-watch")
        while not watch.has_ended:
            try:
                seconds = self._replace_stuck()
            except BaseException:  # noqa: BLE001 - for example MemoryError: it tries again
                self.faults += 1
                seconds = _RETRY_DELAY
            if seconds is not None:
                with suppress(native.Empty):
                    watch.poke.get(timeout=min(seconds, _WATCH_INTERVAL))
                continue
            watch.has_ended = True
            if len(self.queue):  # checked after the flag; `put` adds a job before it checks the flag
                watch.has_ended = False
        watch.thread = None

    def _on_watch_end(self, watch: _StuckWatch) -> None:
        """Start a new watch if jobs wait: the thread of *watch* ended by an exception. Called in a new thread."""
        watch.has_ended = True
        if len(self.queue):
            self._add_worker_or_watch()

    def _replace_stuck(self) -> float | None:
        """Replace stuck workers; return the seconds until the next look, or None when no jobs wait."""
        with self.lock:
            if not len(self.queue):
                return None
            self.repair()
            settings, now = self.settings, monotonic()
            next_away = self._replace_away(now)
            busy = [worker for worker in list(self.workers) if worker.job is not None]
            for worker in busy:
                is_stuck = now - worker.since >= settings.stuck_after and len(self.lost) < settings.max_workers
                if is_stuck and not worker.lost:  # lost once it is replaced, now or at a later look
                    worker.lost = self._start_worker()
                if worker.lost:  # perhaps since the last look, if that was interrupted here
                    self.lost.add(worker)
                    self.workers.discard(worker)
            for _ in range(min(len(self.queue), settings.max_workers - len(self.workers))):
                self._start_worker()  # the replacement may have retired as surplus
            oldest = max((now - w.since for w in busy if not w.lost), default=0.0)
        return min(next_away, max(settings.stuck_after - oldest, settings.stuck_after / 10))

    def _replace_away(self, now: float) -> float:
        """Do not count workers that only wait. Return the seconds until the next look."""
        times = {worker: worker.away_at for worker in list(self.workers)}
        waits = {worker: at - now for worker, at in times.items() if at is not None}
        for worker, seconds in waits.items():
            if seconds <= 0 and len(self.away) < MOST_AWAY and not worker.lost:
                self.away.add(worker)
                self.workers.discard(worker)
        soon = min((seconds for seconds in waits.values() if seconds > 0), default=inf)
        return min(soon, _AWAY_INTERVAL) if _has_been_away else soon


def _call_in_greenlet(hub: Any, func: Callable[[], object]) -> None:
    """Call *func* in a new greenlet. Call it in the main greenlet of a worker whose jobs have made *hub*.

    What a job has left running, such as a `gevent.Timeout`, is raised in the greenlet of that job, and must not reach
    other jobs. So the jobs after it run in another greenlet. What comes too late is reported by the hub, or dropped if
    it is for the main greenlet.

    While *func* runs, its greenlet is the parent of the hub: its errors, such as LoopExit, are those of the job.
    """
    me, runner = getcurrent(), greenlet(func)
    hub.parent = runner
    try:
        enter = runner.switch
        while not runner.dead:
            try:
                enter()
            except BaseException:
                if runner.dead:
                    raise
            enter = (get_hub_if_exists() or runner).switch  # until the runner ends and continues here
    finally:
        if not hub.dead:
            hub.parent = me
            runner.parent = hub


def _check_memory() -> None:
    """Raise MemoryError if no memory is available.

    A worker survives that error, but greenlet aborts the process if it finds no memory at a switch. So the hub is not
    woken before memory is available. The check costs a third of a microsecond.
    """
    bytearray(_STACK)  # from the operating system
    list(_OBJECTS)  # from Python's allocator


def register_inline_threads(*prefixes: str) -> None:
    """Run submits inline on native threads whose names begin with one of *prefixes*.

    These are the threads of a library, on which waiting for a worker would deadlock. `Settings.nice` applies to them.
    """
    global _runtime_threads
    _runtime_threads += prefixes


def is_inline_thread() -> bool:
    """Return True on a worker and on a runtime thread, where waiting for a worker would deadlock."""
    known: bool | None = getattr(_local, "inline", None)
    if known is not None:
        return known
    name = native.this_thread_name()
    if not name or (name.startswith(_runtime_threads) and name == native.program_name()):
        # The system does not provide thread names, or the program's own name, which its threads inherit, begins like
        # the runtime's. Whether the thread has a hub may change, so this is not cached.
        return native.get_ident() != main_native_thread().ident and get_hub_if_exists() is None
    known = _local.inline = _is_runtime_thread(native.get_native_id(), name)
    return known


def elsewhere() -> AbstractContextManager[None]:
    """Record that another process works for the calling worker in the block, which only waits.

    If jobs wait for a worker meanwhile, and the block takes longer than `AWAY_AFTER`, another worker takes its place:
    queries in children do not keep those in threads waiting. On any other thread the block runs unchanged.

    Example:
        >>> with elsewhere():
        ...     pass
    """
    return _waiting(AWAY_AFTER)


def blocked() -> AbstractContextManager[None]:
    """Record that the calling worker waits in the block for another thread: for a lock, an event, a result.

    What it waits for may need a worker. A greenlet that holds a lock during a query, for example, would wait forever
    behind queries whose functions take that lock. So another worker takes its place after `BLOCKED_AFTER`.

    Example:
        >>> with blocked():
        ...     pass
    """
    return _waiting(BLOCKED_AFTER)


@contextmanager
def _waiting(seconds: float) -> Iterator[None]:
    """Let another worker take the place of the calling one if the block takes longer than *seconds*."""
    global _has_been_away
    worker: Worker | None = getattr(_local, "worker", None)
    # A greenlet that a job has started does not speak for the job.
    if worker is None or worker.job is None or worker.away_at is not None or getcurrent() is not worker.greenlet:
        yield
        return
    _has_been_away = True
    worker.away_at = monotonic() + seconds
    try:
        yield
    finally:
        worker.away_at = None


def run_inline_here() -> None:
    """Make the calling thread run its submits inline from now on."""
    _local.inline = True


def run_in_pool_here() -> None:
    """Make the calling thread use the pool, whatever its name."""
    _local.inline = False


def run_in_new_thread(func: Callable[[], object]) -> bool:
    """Run *func* in a new native thread; return False if the system has no more threads.

    *func* may block and must not raise. Use this only for functions that end a running job: in the pool they would
    wait behind the job that they are to end.
    """
    try:
        native.start_thread(_run_in_new_thread, (func,))
    except RuntimeError:  # the system has no more threads
        return False
    return True


def _run_in_new_thread(func: Callable[[], object]) -> None:
    run_inline_here()
    native.name_this_thread("greendata-aside")
    func()


def job_of_this_worker() -> Job | None:
    """Return the job that the calling worker runs now; None on any other thread."""
    worker: Worker | None = getattr(_local, "worker", None)
    return None if worker is None else worker.job


def _after_fork_in_child() -> None:
    """Reset the thread that forked: it is the child's main thread and not a worker, even if a job forked."""
    _local.__dict__.pop("worker", None)
    for workers in _all_workers:
        for worker in (*workers.workers, *workers.lost, *workers.away):
            worker.held = 0  # its thread does not exist here
    _all_workers.clear()
    run_in_pool_here()


def _is_runtime_thread(thread: int, name: str) -> bool:
    # The main thread has the program's name, and threads without a name inherit it.
    return thread != os.getpid() and name.startswith(_runtime_threads) and name != native.program_name()


def _lower_priority_of_runtime(nice: int) -> None:
    """Lower the priority of the runtime's threads by *nice*, so that hubs run first. On Linux nice is per thread.

    The workers keep their priority: a worker that holds the GIL and waits for a core delays the hub as well, and a
    program that it starts would inherit the priority.
    """
    if not nice or not (names := native.thread_names()):
        return
    level = min(19, os.getpriority(os.PRIO_PROCESS, os.getpid()) + nice)
    for thread in [thread for thread, name in names.items() if _is_runtime_thread(thread, name)]:
        with suppress(OSError):  # it has ended, or its priority is lower already, which only root may change
            os.setpriority(os.PRIO_PROCESS, thread, level)


def _are_busy() -> bool:
    return any(len(workers.queue) or workers.running for workers in list(_all_workers))


_all_workers: WeakSet[Workers] = WeakSet()  # any thread adds
native.surround_waits(blocked)
treat_hubs_as_stopped_where(is_inline_thread)
treat_as_idle_unless(_are_busy, Workers._serve, Workers._watch_stuck)
os.register_at_fork(after_in_child=_after_fork_in_child)
