"""The program of a child process that is a driver of a Ray cluster: it runs the queries of an engine as tasks.

It is not patched by gevent, and has a thread for each request. Ray keeps the results; the driver copies the large ones
once, from the object store, which Ray may use again, into a sealed file that the server maps.

::

    server                          main thread                  a thread for each request
    ------                          -----------                  -------------------------
    ("run", 7, ...)     ------->    starts a thread   ------->   submits the tasks
                                                                 waits for one after the other
                        <-----------------------------------     ("frame", 7, (index, frame))
                        <-----------------------------------     ("done", 7, the last one)
    ("cancel", 7)       ------->    cancels the tasks            their errors arrive
                        <-----------------------------------     ("cancelled", 7)
"""

from __future__ import annotations

import _socket
import mmap
import os
import pickle
import re
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from itertools import count
from time import monotonic
from typing import Any

from greendata.engines.child import DONE, FAILED, OUT_OF_MEMORY, last_lines, packed_error
from greendata.engines.messages import MAX_INLINE, close_all, receive, send
from greendata.engines.plans import sealed
from greendata.errors import ChildFailed, ClusterUnreachable, MemoryLimitExceeded, NodeLost, WorkerDied
from greendata.hub import native

__all__ = ("CANCELLED", "FRAME", "serve")

# First words of messages, like those in `greendata.engines.child`. After all but FRAME a request is over.
CANCELLED, FRAME = "cancelled", "frame"

_CONNECT_TIMEOUT = 10.0  # seconds for a connection to the head; Ray itself waits for minutes
_CANCEL_DELAY = 0.05  # seconds for a cancelled task to end by itself
_END_TIMEOUT = 10.0  # seconds for cancelled tasks to end; a dead node reports nothing
_AVOIDED = 60.0  # seconds for which a node that has died gets no task; Ray notices after some 10
_STDERR_TIMEOUT = 30.0  # seconds for the nodes to report what a dead task has written

_Plan = tuple[bytes, list[str]]  # and the keys of the shared frames in it


def serve(sock: _socket.socket, address: str, settings: dict[str, Any]) -> None:
    """Run what the engine asks for, many queries at a time.

    Args:
        sock: the engine.
        address: of the cluster.
        settings: the versions, and the arguments of `RayTasks`.

    Raises:
        ConnectionLost, OSError: the engine has closed the socket.
    """
    os.dup2(2, 1)  # Ray prints to stdout, which is the server's
    server = _RequestServer(sock, settings)
    try:
        server.connect(address)
    except BaseException as error:  # noqa: BLE001 - every error is the caller's
        send(sock, (FAILED, 0, packed_error(error)))
        os._exit(0)  # whatever Ray has begun: the next query starts another driver
    send(sock, (DONE, 0, None))
    while True:
        (word, *arguments), files = receive(sock, is_one_of_many=True)
        getattr(server, word)(*arguments, *files)


class _Cancelled(Exception):
    """The request was cancelled."""


class _Request:
    """The tasks of a request. The main thread cancels, the thread of the request submits."""

    def __init__(self, directory: str | None) -> None:
        self.directory = directory  # of the server, which relative paths in a query mean
        self.is_cancelled = False
        self._lock = native.allocate_lock()  # guards all three, and is held while a task is submitted
        self._outcomes: list[Any] = []  # of its tasks
        self._cancelled: set[Any] = set()  # those of tasks that Ray was asked to cancel, which must be once

    def submit(self, task: Callable[[], Any]) -> Any:
        """Return what *task* returns: a reference, or several, the first of which is that to its outcome."""
        with self._lock:
            if self.is_cancelled:
                raise _Cancelled
            found = task()
            self._outcomes.append(found[0] if isinstance(found, list) else found)
            return found

    def cancel(self, ray: Any) -> list[Any]:
        """Cancel the tasks that run or wait; return the references to their outcomes, which are there once they end.

        A task that ends by itself a moment later is left alone: Ray aborts this process if a task is cancelled while it
        does the accounting for its end (github.com/ray-project/ray/pull/54785).
        """
        with self._lock:
            self.is_cancelled = True
            outcomes = [*self._outcomes]
        if not outcomes:
            return []
        _, running = ray.wait(outcomes, num_returns=len(outcomes), timeout=_CANCEL_DELAY, fetch_local=False)
        with self._lock:
            new = [outcome for outcome in running if outcome not in self._cancelled]
            self._cancelled.update(new)
        for outcome in new:
            ray.cancel(outcome, force=True)
        return list(running)


# The index of the plan, its packed frames, and the large ones, or for a part the reference to them.
_Frames = tuple[int, list[bytes | int], Any]
_Work = Callable[[_Request], _Frames | None]  # returns those that have not been sent


class _RequestServer:
    """The requests of one engine. Methods without an underscore are called by the main thread only."""

    def __init__(self, sock: _socket.socket, settings: dict[str, Any]) -> None:
        self._sock = sock
        self._versions: dict[str, str] = settings["versions"]
        self._inner: str = settings["inner"]
        self._retries: int = settings["retries"]
        self._memory_limit: int | None = settings["memory_limit"]
        self._options: dict[str, Any] = settings["options"]
        self._variables: dict[str, str] = settings["variables"]
        self._name = secrets.token_hex(8)
        self._numbers = count(1)  # of tasks; any thread
        self._sending = native.allocate_lock()  # held while a message is sent
        self._requests: dict[int, _Request] = {}  # the main thread adds, the thread of a request removes
        self._frames: dict[str, tuple[bytes | int, int | None]] = {}  # shared frames and files; the main thread
        self._stored: dict[str, Any] = {}  # these in the object store; any thread, under the lock to add
        self._storing = native.allocate_lock()  # held while a frame is put there
        self._idle: deque[None] = deque()  # an entry for each thread without a request that none is on its way to
        self._begun = native.SimpleQueue[tuple[int, _Request, _Work]]()  # requests for these threads
        self._avoided: dict[str, float] = {}  # nodes that have died, and until when; any thread, one step at a time

    def connect(self, address: str) -> None:
        """Join the cluster.

        Raises:
            ClusterUnreachable: it is not there, or does not accept this process.
        """
        self._ray: Any = import_module("ray")
        node: Any = import_module("greendata.engines.ray_cluster.node")
        host, _, port = address.rpartition(":")
        try:
            if port.isdigit():
                _check_port(host, int(port))
            self._ray.init(
                address,
                log_to_driver=False,
                configure_logging=False,
                runtime_env={"env_vars": self._variables},
            )
        except Exception as error:
            raise ClusterUnreachable(address, f"{type(error).__name__}: {error}") from error
        self._errors: Any = import_module("ray.exceptions")
        make = self._ray.remote(max_retries=0, **self._options)
        self._run_plan, self._reduce_parts = make(node.run_plan), make(node.reduce_parts)
        self._run_part = self._ray.remote(max_retries=0, num_returns=2, **self._options)(node.run_plan)
        self._dead_stderr = self._ray.remote(num_cpus=0, max_retries=0)(node.dead_stderr)

    # -- requests: the main thread --------------------------------------------------------------------

    def put(self, key: str, packed: bytes | int, *files: int) -> None:
        """Keep a shared frame for the tasks to come."""
        self._frames[key] = packed, (files[0] if files else None)

    def forget(self, keys: list[str]) -> None:
        """Drop shared frames."""
        for key in keys:  # without the lock, which is held for as long as Ray takes for a frame
            _, file = self._frames.pop(key)
            if file is not None:
                os.close(file)
            self._stored.pop(key, None)

    def run(self, number: int, directory: str | None, plans: list[_Plan], method: str, options: bytes) -> None:
        """Run a task for each plan, and send the frames as they arrive."""
        tries = self._retries + 1 if method == "collect" else 1  # a sink that has begun may have written
        self._start(number, directory, lambda request: self._run_all(number, request, method, plans, options, tries))

    def reduce(self, number: int, directory: str | None, plans: list[_Plan], options: bytes, function: bytes) -> None:
        """Run a task for each plan, then one that makes one frame of theirs, and send that."""
        self._start(number, directory, lambda request: self._run_parts(request, plans, options, function))

    def cancel(self, number: int) -> None:
        """Cancel the tasks of a request. Its thread reports when they have ended."""
        if (request := self._requests.get(number)) is not None:
            native.start_thread(request.cancel, (self._ray,))  # which takes `_CANCEL_DELAY`

    # -- the thread of a request ----------------------------------------------------------------------

    def _start(self, number: int, directory: str | None, work: _Work) -> None:
        self._requests[number] = request = _Request(directory)
        try:
            self._idle.pop()
        except IndexError:
            native.start_thread(self._serve, (number, request, work))
        else:
            self._begun.put((number, request, work))

    def _serve(self, number: int, request: _Request, work: _Work) -> None:
        while True:
            try:
                self._answer(number, work(request))
            except BaseException as error:  # noqa: BLE001 - every error is the caller's
                self._end(request)
                was_cancelled = isinstance(error, _Cancelled)
                self._send((CANCELLED, number, None) if was_cancelled else (FAILED, number, self._packed(error)))
            del self._requests[number]
            self._idle.append(None)
            del request, work
            number, request, work = self._begun.get()

    def _answer(self, number: int, last: _Frames | None) -> None:
        if last is None:
            self._send((DONE, number, None))
        else:
            self._send_frames(DONE, number, *last)

    def _end(self, request: _Request) -> None:
        """End the tasks of a request, whose outcomes are no longer needed."""
        with suppress(Exception):  # whatever Ray raises, the engine waits for a reply
            if outcomes := request.cancel(self._ray):
                self._ray.wait(outcomes, num_returns=len(outcomes), timeout=_END_TIMEOUT, fetch_local=False)

    def _send(self, message: tuple[Any, ...], files: list[int] | None = None) -> None:
        with self._sending, suppress(OSError):  # the engine has closed the socket, which ends this process
            send(self._sock, message, files)

    def _packed(self, error: BaseException) -> tuple[bytes, str, str]:
        """Return *error* for the engine, which must not import Ray."""
        if isinstance(error, _Failed):
            return error.packed
        if isinstance(error, self._errors.RayError):
            error = ChildFailed(f"{type(error).__name__}: {error}")
        return packed_error(error)

    # -- tasks ----------------------------------------------------------------------------------------

    def _run_all(
        self,
        number: int,
        request: _Request,
        method: str,
        plans: list[_Plan],
        options: bytes,
        tries: int,
    ) -> _Frames | None:
        tasks = [_RayTask(self._run_plan, (method, plan, options, keys), keys) for plan, keys in plans]
        last = None
        for frames in self._outcomes(request, tasks, MAX_INLINE, tries):
            if last is not None:
                self._send_frames(FRAME, number, *last)
            last = frames
        return last

    def _run_parts(self, request: _Request, plans: list[_Plan], options: bytes, function: bytes) -> _Frames:
        tasks = [_RayTask(self._run_part, ("collect", plan, options, keys), keys) for plan, keys in plans]
        tries = self._retries + 1
        while True:
            tries -= 1
            parts = {index: data for index, _, data in self._outcomes(request, tasks, 0, self._retries + 1)}
            inputs = tuple(parts[index] for index in range(len(tasks)))
            task = _RayTask(self._reduce_parts, (function, options), inputs=inputs)
            try:
                (frames,) = self._outcomes(request, [task], MAX_INLINE, 1)
            except NodeLost:  # parts may have been lost as well
                if not tries:
                    raise
            else:
                return frames

    def _outcomes(self, request: _Request, tasks: list[_RayTask], most_inline: int, tries: int) -> Iterator[_Frames]:
        """Run *tasks*, and yield the frames of each as it ends.

        Raises:
            _Failed: with the error of a task.
            _Cancelled: the request was cancelled.
            NodeLost: a node has died, and the task has been tried *tries* times, or there is no other node.
            WorkerDied, MemoryLimitExceeded: a task has ended without an outcome.
        """
        waiting = {}
        for index, task in enumerate(tasks):
            task.tries = tries
            waiting[self._submit(request, task, most_inline, is_one_of_many=len(tasks) > 1)] = index
        while waiting:
            outcome = next(iter(waiting))
            if len(waiting) > 1:
                (outcome,), _ = self._ray.wait(list(waiting), num_returns=1, fetch_local=False)
            index = waiting.pop(outcome)
            task = tasks[index]
            try:
                packed, data = self._fetch(task, outcome)
            except self._errors.RayError as raised:
                error = getattr(raised, "cause", None) or raised  # its arguments may have been lost
                if request.is_cancelled:
                    raise _Cancelled from error
                self._check_lost(task, error)
                waiting[self._submit(request, task, most_inline, is_one_of_many=False)] = index
            else:
                yield index, packed, data

    def _submit(self, request: _Request, task: _RayTask, most_inline: int, *, is_one_of_many: bool) -> Any:
        """Submit *task*, and return the reference to its outcome."""
        stderr = None if self._memory_limit is None else f"greendata-{self._name}-{next(self._numbers)}.err"
        function = task.function
        options: dict[str, Any] = {}
        if avoided := [node for node, until in list(self._avoided.items()) if until > monotonic()]:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(avoided)})"}
        if is_one_of_many:
            options["scheduling_strategy"] = "SPREAD"
        if options:
            function = function.options(**options)
        context = (self._versions, self._inner, request.directory, stderr, most_inline)
        order = pickle.dumps((context, *task.arguments), protocol=pickle.HIGHEST_PROTOCOL)
        inputs = (*task.inputs, *map(self._store, task.keys))
        found = request.submit(lambda: function.remote(order, *inputs))
        task.stderr = stderr
        task.tries -= 1
        if not isinstance(found, list):
            return found
        outcome, task.data = found
        return outcome

    def _fetch(self, task: _RayTask, outcome: Any) -> tuple[list[bytes | int], Any]:
        """Return the packed frames of a task, and its large frames, or the reference to these if it is a part.

        Raises:
            _Failed: the task has failed.
            RayError: it has no outcome.
        """
        found = self._ray.get(outcome)
        (word, value), data = found if task.data is None else (found, task.data)
        task.data = None
        if word == FAILED:
            raise _Failed(value)
        return value, data

    def _check_lost(self, task: _RayTask, error: BaseException) -> None:
        """Return if *task* has been lost with its process or node, and may be tried again; raise why not otherwise."""
        errors = self._errors
        if isinstance(error, errors.WorkerCrashedError):
            death = self._death(task.stderr)
            if task.tries and not isinstance(death, MemoryLimitExceeded):
                return  # Ray may also have ended the process for a task that ran in it before, and was cancelled
            raise death from error
        if isinstance(error, errors.OutOfMemoryError):  # Ray has ended it to save the node
            raise WorkerDied(None, str(error)) from error
        if not isinstance(error, errors.NodeDiedError | errors.ObjectLostError):
            raise error
        node = self._avoid(str(error))
        if not task.tries or not self._has_other_nodes():
            raise NodeLost(node, str(error)) from error

    def _store(self, key: str) -> Any:
        """Return the shared frame in the object store, where it is put once."""
        with self._storing:
            if key not in self._stored:
                packed, file = self._frames[key]
                data: Any = packed if file is None else mmap.mmap(file, 0, prot=mmap.PROT_READ)
                self._stored[key] = self._ray.put(pickle.PickleBuffer(data))
            return self._stored[key]

    def _send_frames(self, word: str, number: int, index: int, packed: list[bytes | int], data: list[Any]) -> None:
        files: list[int] = []
        try:
            files.extend(sealed([each]) for each in data)
            self._send((word, number, (index, packed)), files)
        finally:
            close_all(files)

    # -- nodes ----------------------------------------------------------------------------------------

    def _avoid(self, text: str) -> str:
        """Give the node that *text* says has died no more tasks, and return its name."""
        found = re.search(r"node ID: (?P<id>[0-9a-f]+)", text)
        if found is None:
            return ""
        self._avoided[found["id"]] = monotonic() + _AVOIDED
        return found["id"]

    def _has_other_nodes(self) -> bool:
        nodes = [node for node in self._ray.nodes() if node["Alive"] and node["NodeID"] not in self._avoided]
        return any(node["Resources"].get("CPU", 0) >= self._options["num_cpus"] for node in nodes)

    def _death(self, stderr: str | None) -> WorkerDied:
        wrote = self._read_stderr(stderr) if stderr is not None else ""
        if self._memory_limit is not None and any(text in wrote for text in OUT_OF_MEMORY):
            return MemoryLimitExceeded(self._memory_limit, None, last_lines(wrote))
        return WorkerDied(None, last_lines(wrote))

    def _read_stderr(self, stderr: str) -> str:
        """Return what a task that has died has written. Ray does not say on which node that was."""
        affinity: Any = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        nodes = [node["NodeID"] for node in self._ray.nodes() if node["Alive"]]
        tasks = [
            self._dead_stderr.options(scheduling_strategy=affinity(node, soft=False)).remote(stderr) for node in nodes
        ]
        ended, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=_STDERR_TIMEOUT)
        for task in ended:
            with suppress(self._errors.RayError):  # this node has died as well
                wrote: str | None = self._ray.get(task)
                if wrote is not None:
                    return wrote
        return ""


class _RayTask:
    """A call of a function in `greendata.engines.ray_cluster.node`. The thread of its request alone uses it."""

    def __init__(
        self, function: Any, arguments: tuple[Any, ...], keys: Iterable[str] = (), inputs: tuple[Any, ...] = ()
    ) -> None:
        self.function = function
        self.arguments = arguments  # after the context, in one pickle
        self.keys = keys  # of shared frames, which are arguments of their own
        self.inputs = inputs  # references to other such arguments
        self.tries = 0  # that are left
        self.data: Any = None  # if it is a part, the reference to its large frames
        self.stderr: str | None = None  # the file that it writes to instead


class _Failed(Exception):
    """A task has failed with an error of its own, which is passed on as it is packed."""

    def __init__(self, packed: tuple[bytes, str, str]) -> None:
        super().__init__(packed[1])
        self.packed = packed


def _check_port(host: str, port: int) -> None:
    """Connect to the head and close the connection.

    Raises:
        OSError: nothing listens there.
    """
    family, kind, protocol, _, address = _socket.getaddrinfo(host, port, 0, _socket.SOCK_STREAM)[0]
    sock = _socket.socket(family, kind, protocol)
    try:
        sock.settimeout(_CONNECT_TIMEOUT)
        sock.connect(address)
    finally:
        sock.close()
