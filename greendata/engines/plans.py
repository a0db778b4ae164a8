"""Plans, options and frames in the form in which they cross to another process and back."""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Mapping
from importlib import import_module
from io import BytesIO
from typing import Any

import polars as pl

from greendata.engines.messages import MAX_INLINE
from greendata.internals.polars import flags_of, read_flags

__all__ = ("options_of", "pack", "pack_options", "unpack")

_ADD_SEALS, _GET_SEALS = 1033, 1034  # fcntl.F_ADD_SEALS, fcntl.F_GET_SEALS
_SHRINK, _GROW, _WRITE, _SEAL = 0x2, 0x4, 0x8, 0x1
_SEALS = _SHRINK | _GROW | _WRITE | _SEAL
_COPIED = (pl.Int128, pl.UInt128)  # pyarrow does not know them


def pack_options(options: Mapping[str, Any]) -> bytes:
    """Return the keyword arguments of an engine's method as bytes.

    Raises:
        Exception: an argument cannot be pickled.
    """
    packed = dict(options)
    if (flags := packed.pop("optimizations", None)) is not None:
        flags = read_flags(flags)
    return pickle.dumps((flags, packed))


def options_of(packed: bytes) -> dict[str, Any]:
    """Return the keyword arguments that `pack_options` has packed."""
    flags, options = pickle.loads(packed)  # both ends are ours
    if flags is not None:
        options["optimizations"] = flags_of(flags)
    return options  # type: ignore[no-any-return]


def pack(frames: list[pl.DataFrame]) -> tuple[list[bytes | int], list[int]]:
    """Return each frame as an IPC stream or as the index of a sealed file in memory, and the descriptors of the files.

    The files belong to the caller.
    """
    files: list[int] = []
    packed: list[bytes | int] = []
    try:
        for frame in frames:
            if frame.estimated_size() < MAX_INLINE:
                buffer = BytesIO()
                frame.write_ipc_stream(buffer, compat_level=pl.CompatLevel.newest())
                packed.append(buffer.getvalue())
            else:
                packed.append(len(files))
                files.append(_file_of(frame))
    except BaseException:
        for file in files:
            os.close(file)
        raise
    return packed, files


def _file_of(frame: pl.DataFrame) -> int:
    file = os.memfd_create("greendata", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        frame.write_ipc(f"/proc/self/fd/{file}", compat_level=pl.CompatLevel.newest())
        fcntl.fcntl(file, _ADD_SEALS, _SEALS)
    except BaseException:
        os.close(file)
        raise
    return file


def unpack(packed: list[bytes | int], files: list[int]) -> list[pl.DataFrame]:
    """Return the frames that `pack` has packed. Large ones are mapped, without a copy, if pyarrow is there.

    Raises:
        ValueError: a file is not sealed. Somebody could change it, or cut it short, which would end the process.
    """
    return [pl.read_ipc_stream(BytesIO(each)) if isinstance(each, bytes) else _mapped(files[each]) for each in packed]


def _mapped(file: int) -> pl.DataFrame:
    wanted = _SHRINK | _GROW | _WRITE
    if fcntl.fcntl(file, _GET_SEALS) & wanted != wanted:
        raise ValueError("the file with the frame is not sealed")
    path = f"/proc/self/fd/{file}"
    try:
        pyarrow: Any = import_module("pyarrow")
    except ImportError:
        return pl.read_ipc(path)
    if any(isinstance(each, _COPIED) for dtype in pl.read_ipc_schema(path).values() for each in _parts(dtype)):
        return pl.read_ipc(path)
    with pyarrow.memory_map(path) as source:
        frame = pl.from_arrow(pyarrow.ipc.open_file(source).read_all(), rechunk=False)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _parts(dtype: Any) -> list[Any]:
    """Return *dtype* and all dtypes inside it."""
    if isinstance(dtype, pl.Struct):
        return [dtype, *(part for field in dtype.fields for part in _parts(field.dtype))]
    inner = getattr(dtype, "inner", None)
    return [dtype] if inner is None else [dtype, *_parts(inner)]
