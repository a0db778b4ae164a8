"""Race windows: a test makes an event happen between two steps of a thread, which otherwise is very rare.

A thread can lose the GIL, and a signal handler or a finalizer can run, at every call. `sys.setprofile` reports
each call in the thread that sets it, whatever is patched, so a test can act at exactly that place.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import greendata
from tests.support.gates import Gate, rest

__all__ = ("Interruption", "at", "before", "in_hub", "in_workers", "interrupted")

Hook = Callable[[FrameType, str, Any], None]


def at(event: str, name: str, code: CodeType, act: Callable[[], object]) -> Hook:
    """Return a hook for `sys.setprofile` that calls *act* once, in the thread that sets it.

    Args:
        event: "c_call" or "c_return" of the built-in *name*, or "call" or "return" of the function *name*.
        code: of the function that makes the call.
    """

    def look(frame: FrameType, kind: str, what: Any) -> None:
        if kind != event:
            return
        is_python = event in ("call", "return")
        caller, called = (frame.f_back, frame.f_code.co_name) if is_python else (frame, what.__name__)
        if called == name and caller is not None and caller.f_code is code:
            sys.setprofile(None)
            act()

    return look


def before(line: str, func: Callable[..., object], act: Callable[[], object]) -> Hook:
    """Return a hook for `sys.settrace` that calls *act* once, before the line of *func* with the text *line*."""
    lines, first = inspect.getsourcelines(func)
    number = first + [each.strip() for each in lines].index(line)

    def look(frame: FrameType, kind: str, _: Any) -> Hook | None:
        if frame.f_code is not func.__code__:  # type: ignore[attr-defined]
            return None
        if kind == "line" and frame.f_lineno == number:
            sys.settrace(None)
            act()
        return look

    return look


def in_hub(hub: Any, hook: Hook) -> None:
    """Set *hook* for the hub's greenlet, from its next loop on."""
    hub.loop.run_callback(sys.setprofile, hook)


@contextmanager
def in_workers(hook: Hook) -> Iterator[None]:
    """Limit the pool to two workers inside the block, and set *hook* in them."""
    before = greendata.configure().max_workers
    greendata.configure(max_workers=2)
    while greendata.stats().workers > 2:  # another one may be about to look for a job
        rest()
    try:
        _in_both(hook)
        yield
        _in_both(None)
    finally:
        greendata.configure(max_workers=before)


def _in_both(hook: Hook | None) -> None:
    both = Gate()

    def set_hook() -> None:
        both()
        sys.setprofile(hook)

    jobs = [greendata.run(set_hook) for _ in range(2)]
    both.wait_arrived(2)
    both.open()
    for job in jobs:
        job.get()


class Interruption(Exception):
    """The exception that a signal handler raises."""


def interrupted(act: Callable[[], object]) -> Iterator[int]:
    """Repeat *act*, each time with an `Interruption` one step later, until it finishes before that step.

    A step is an instruction of the interpreter in a function of the package that *act* calls in this thread. Yields the
    number of the step after each time: what must hold then is for the caller to look at.
    """
    step = 0
    is_over = False
    while not is_over:
        step += 1
        with suppress(Interruption), _raising_at(step) as left:  # some steps are in code that catches every error
            act()
        is_over = bool(left)
        if not is_over:
            yield step


@contextmanager
def _raising_at(step: int) -> Iterator[list[int]]:
    """Raise an `Interruption` at that *step* of the block; the list has an item for each step that is left."""
    left = [0] * step

    def look(frame: FrameType, kind: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        frame.f_trace = look  # in Python 3.13 this has an effect only for a traced frame
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if kind == "opcode" and left:
            left.pop()
            if not left:
                sys.settrace(None)
                raise Interruption
        return look

    # CPython swallows an error that is raised while it closes a generator, and from 3.14 on it reports it.
    report = sys.unraisablehook
    sys.unraisablehook = lambda found: None if isinstance(found.exc_value, Interruption) else report(found)
    sys.settrace(look)
    try:
        yield left
    finally:
        sys.settrace(None)
        sys.unraisablehook = report


_PACKAGE = str(Path(greendata.__file__).parent)
