"""Functions that run on the nodes of a Ray cluster, as tasks of the driver in `greendata.engines.ray_cluster.program`.

Each returns two objects. The first is small: the outcome, with small frames in it, or the error. The second has the
large frames as buffers, which Ray copies into the object store of the node and maps from there.
"""

from __future__ import annotations

import mmap
import os
import pickle
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl

from greendata.engines import shared
from greendata.engines.child import DONE, FAILED, object_named, packed_error
from greendata.engines.plans import options_of, pack, read_buffer, read_plan
from greendata.errors import NodeDiffers, NotAFrame

__all__ = ("REDUCED", "dead_stderr", "reduce_parts", "run_plan", "versions")

REDUCED = "reduce must return the LazyFrame of the result"  # of an error

# The versions of the server, the engine that computes, the directory that relative paths mean, the name of a file for
# stderr (see `dead_stderr`), and the bytes of a frame that may be in the first object.
Context = tuple[dict[str, str], str, str | None, str | None, int]
TaskOutcome = tuple[tuple[str, Any], list[pickle.PickleBuffer]]


@cache
def versions() -> dict[str, str]:
    """Return what must be the same on all sides: plans and pickles of one version mean nothing to another."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"Polars": pl.__version__, "greendata": import_module("greendata").__version__, "Python": python}


def run_plan(order: bytes, *buffers: Any) -> TaskOutcome:
    """Call a method of a query. *buffers* are the shared frames in its plan.

    *order* is the pickle of the context, the method, the plan, the options and the keys of the frames: Ray takes longer
    for five arguments than for one.
    """
    context, method, plan, options, keys = pickle.loads(order)

    def work() -> list[pl.DataFrame]:
        shared.frames.update((key, read_buffer(buffer)) for key, buffer in zip(keys, buffers, strict=True))
        frame = getattr(read_plan(plan), method)(engine=_engine(context[1]), **options_of(options))
        return [frame] if method == "collect" else []

    try:
        return _outcome(context, work)
    finally:
        shared.frames.clear()


def reduce_parts(order: bytes, *parts: list[Any]) -> TaskOutcome:
    """Make one frame of *parts*, each with the buffers of a frame.

    *order* is the pickle of the context, the pickled function that reduces, and the options.
    """
    context, reduce, options = pickle.loads(order)

    def work() -> list[pl.DataFrame]:
        lf = pl.concat([read_buffer(buffer).lazy() for part in parts for buffer in part])
        reduced = pickle.loads(reduce)(lf)
        if not isinstance(reduced, pl.LazyFrame):
            raise NotAFrame(reduced, "LazyFrame", REDUCED)
        return [reduced.collect(engine=_engine(context[1]), **options_of(options))]

    return _outcome(context, work)


def dead_stderr(stderr: str) -> str | None:
    """Return what a task on this node has written to the file *stderr* before it ended, and remove the file."""
    path = _folder() / stderr
    if not path.exists():
        return None
    wrote = path.read_text(errors="replace")
    path.unlink()
    return wrote


def _outcome(context: Context, work: Callable[[], list[pl.DataFrame]]) -> TaskOutcome:
    expected, _, directory, stderr, most_inline = context
    try:
        for name, version in versions().items():
            if version != expected[name]:
                raise NodeDiffers(name, expected[name], version)
        if directory is not None:
            with suppress(OSError):  # it does not exist here
                os.chdir(directory)
        with _stderr_in(stderr):
            packed, files = pack(work(), most_inline)
        return (DONE, packed), [_buffer_of(file) for file in files]
    except BaseException as error:  # noqa: BLE001 - every error is the caller's
        return (FAILED, packed_error(error)), []


@cache
def _engine(inner: str) -> Any:
    return object_named(inner)() if ":" in inner else inner


def _buffer_of(file: int) -> pickle.PickleBuffer:
    try:
        return pickle.PickleBuffer(mmap.mmap(file, 0, prot=mmap.PROT_READ))
    finally:
        os.close(file)


@contextmanager
def _stderr_in(name: str | None) -> Iterator[None]:
    """Have a file take what is written to stderr in the block, and pass it on at the end."""
    if name is None:
        yield
        return
    path = _folder() / name
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
    usual = os.dup(2)
    os.dup2(file, 2)
    try:
        yield
    finally:
        os.dup2(usual, 2)
        os.close(usual)
        path.unlink()
        with suppress(OSError):  # the usual place takes no more
            os.write(2, os.pread(file, 1 << 20, 0))
        os.close(file)


def _folder() -> Path:
    """Return the folder of the files for stderr: that of Ray's logs, if stderr is one of them."""
    log = Path(os.readlink("/proc/self/fd/2"))
    return log.parent if log.is_file() else Path(tempfile.gettempdir())
