"""`Driver`: a child process that serves many requests at a time, as its engine uses it.

One native thread reads and writes its socket and watches the process. It hands each reply to the worker that waits for
it, and when the process ends, it fails all requests.

    workers                               I/O thread                       child
    -------                               ----------                       -----
    begin(7, message) -> a queue --->     sends it when the child is ready
    queue.get()                <-----     receives (word, 7, value)   <----
    cancel(7), from any thread ----->     sends it                    ---->
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from gevent.monkey import get_original

from greendata.engines.child import FAILED
from greendata.engines.children import Child, error_of
from greendata.engines.messages import ConnectionLost, close_all, receive, send
from greendata.engines.ray_cluster.program import CANCELLED, FRAME
from greendata.errors import WorkerDied
from greendata.hub import native

__all__ = ("Answers", "Driver")

Answers = native.SimpleQueue[tuple[str, Any, list[int]]]  # word, value, descriptors
_poll: Any = get_original("select", "poll")
_POLLIN, _POLLOUT = 1, 4
_STATE_INTERVAL = 1000  # milliseconds between two looks at a process with pending requests


class Driver(Child):
    """A child process that serves many requests at a time. Safe from any thread.

    Args:
        program: the name of the function that serves the engine there, see `greendata.engines.child`. Its first message
            is the reply to request 0: it is ready, or why not.
        arguments: for that function.
        environment: of the process.
        unready: makes the error of the requests, from the stderr of a process that ended before it was ready.

    Raises:
        OSError: the system has no more processes or descriptors.
        RuntimeError: the system has no more threads.
    """

    def __init__(
        self,
        program: str,
        arguments: tuple[Any, ...],
        environment: dict[str, str],
        unready: Callable[[str], Exception],
    ) -> None:
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # first: a fork closes it with the rest
        try:
            super().__init__(program, arguments, None, environment)
        except BaseException:
            os.close(self._wakeup)
            raise
        self._unready = unready
        # Guards everything below; held for some lines at a time. A finalizer may cancel a request in any thread.
        self._requests_lock = native.RLock()
        self._answers: dict[int, Answers] = {}  # of the requests that are not over
        self._outgoing: deque[tuple[int, tuple[Any, ...], list[int]]] = deque()
        self._ending: Callable[[], BaseException] | None = None  # the error for all requests from now on
        self._ended = native.allocate_lock()  # released when the process has been reaped
        self._ended.acquire()
        try:
            native.start_thread(self._serve, ())
        except RuntimeError:
            os.close(self._wakeup)
            self.kill()
            self.reap()
            raise

    # -- any thread -----------------------------------------------------------------------------------

    def begin(self, number: int, *messages: tuple[tuple[Any, ...], list[int]]) -> Answers:
        """Send *messages*, the last of which is request *number*, and return the queue for its replies.

        The descriptors of a message are closed once they are sent.
        """
        answers: Answers = native.SimpleQueue()
        with self._requests_lock:
            if self._ending is not None:
                answers.put((FAILED, self._ending(), []))
                close_all([file for _, files in messages for file in files])
                return answers
            self._answers[number] = answers
            self._outgoing.extend((number, *message) for message in messages)
            os.eventfd_write(self._wakeup, 1)
        return answers

    def cancel(self, number: int) -> None:
        """Cancel a request, unless it is over. Its last reply says that nothing of it runs any more. Never blocks."""
        with self._requests_lock:
            if number not in self._answers:
                return
            if self.is_ready:
                self._outgoing.append((number, ("cancel", number), []))
                os.eventfd_write(self._wakeup, 1)
            else:  # nothing of it has been sent
                ours = [entry for entry in self._outgoing if entry[0] == number and entry[1][1] == number]
                for entry in ours:
                    self._outgoing.remove(entry)
                self._answers.pop(number).put((CANCELLED, None, []))

    def end(self, number: int, answers: Answers) -> None:
        """Leave a request whose replies are no longer wanted; cancel it unless it is over. Never blocks."""
        self.cancel(number)
        with self._requests_lock:
            self._answers.pop(number, None)
        while not answers.empty():
            close_all(answers.get()[2])

    def close(self, error: Callable[[], BaseException]) -> None:
        """End the process, fail all requests with ``error()``, and return when it is gone."""
        with self._requests_lock:
            self._ending = self._ending or error
        self.kill()
        with self._ended:
            pass

    @property
    def is_alive(self) -> bool:
        """True if it can be asked."""
        with self._lock:
            if self.is_gone or self.was_killed or self._ending is not None:
                return False
            poll = _poll()
            poll.register(self._process, _POLLIN)
            return not poll.poll(0)

    def forget(self) -> None:
        """Close the descriptors of a child of the parent process. Call in the child of a fork."""
        if not self._has_closed:
            os.close(self._wakeup)
        super().forget()

    # -- the I/O thread -------------------------------------------------------------------------------

    def _serve(self) -> None:
        native.name_this_thread("greendata-driver")
        died = WorkerDied(None, "")
        try:
            died = self._end()
        finally:
            self._fail_all(died)
            self._ended.release()

    def _end(self) -> WorkerDied:
        """Serve until the process has ended, and return how it has."""
        cause: BaseException | None = None
        try:
            self._pass_on()
            self.kill()
        except (ConnectionLost, OSError) as error:
            cause = error
        except BaseException as error:  # noqa: BLE001 - garbage, or no memory: it cannot be used any more
            cause = error
            self.kill()
        self._poll.unregister(self._wakeup)
        with self._using:
            died = self._died()
        died.__cause__ = cause
        return died

    def _pass_on(self) -> None:
        """Pass messages on until the process ends, is stopped by a signal, or is late."""
        self._poll.register(self._wakeup, _POLLIN)
        while True:
            interval = _STATE_INTERVAL if self._answers or not self.is_ready else None
            ready = dict(self._poll.poll(interval))
            if self._sock.fileno() in ready:
                self._hand_over()
            elif self._process in ready:
                return
            if self._wakeup in ready:
                os.eventfd_read(self._wakeup)
            if self.is_ready:
                self._send_outgoing()
            elif monotonic() > self._latest_start:
                return
            if not ready and self.is_stopped:
                return

    def _hand_over(self) -> None:
        (word, number, value), files = receive(self._sock, is_one_of_many=True)
        self._pass_stderr_on()
        if number == 0:
            with self._requests_lock:
                self.is_ready = word != FAILED
                if word == FAILED:
                    self._ending = partial(error_of, *value)
            return
        if word == FAILED:
            value = error_of(*value)
        with self._requests_lock:
            answers = self._answers.get(number) if word == FRAME else self._answers.pop(number, None)
            if answers is not None:
                answers.put((word, value, files))
                return
        close_all(files)

    def _send_outgoing(self) -> None:
        while self._outgoing:
            _, message, files = self._outgoing[0]
            try:
                send(self._sock, message, files, self._wait_to_send)
            finally:
                self._outgoing.popleft()
                close_all(files)

    def _wait_to_send(self) -> None:
        """Hand over what arrives until more of a message can be sent: the process may itself be waiting to send."""
        poll, sock = _poll(), self._sock.fileno()
        poll.register(sock, _POLLIN | _POLLOUT)
        poll.register(self._process, _POLLIN)
        while True:
            ready = dict(poll.poll(_STATE_INTERVAL))
            events = ready.get(sock, 0)
            if events & _POLLIN:
                self._hand_over()
            if events & _POLLOUT:
                return
            if not events & _POLLIN and (ready or self.is_stopped):
                raise ConnectionLost

    def _fail_all(self, died: WorkerDied) -> None:
        with self._requests_lock:
            if self._ending is None and self.is_ready:
                self._ending = partial(_with_cause, partial(WorkerDied, died.status, died.stderr), died.__cause__)
            elif self._ending is None:
                self._ending = partial(_with_cause, partial(self._unready, died.stderr), died)
            waiting, self._answers = [*self._answers.values()], {}
            close_all([file for *_, files in self._outgoing for file in files])
            self._outgoing.clear()
            os.close(self._wakeup)
        for answers in waiting:  # each its own error: a traceback grows where it is raised
            answers.put((FAILED, self._ending(), []))


def _with_cause(make: Callable[[], BaseException], cause: BaseException | None) -> BaseException:
    error = make()
    error.__cause__ = cause
    return error
