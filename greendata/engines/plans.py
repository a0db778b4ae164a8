"""Convert plans, options and frames to and from the form in which they cross to another process."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from importlib import import_module
from io import BytesIO
from typing import Any, TypeAlias

import polars as pl

from greendata.engines.messages import MAX_DESCRIPTORS, MAX_INLINE, close_all, dumps, remedy_for
from greendata.errors import NotSendable, PolarsForked
from greendata.hub.pacing import GilReleaser
from greendata.internals.polars import flags_of, read_flags
from greendata.query.chunked_text import text_of

__all__ = (
    "MAX_PLAN",
    "combine_chunks",
    "options_of",
    "pack",
    "pack_object",
    "pack_options",
    "pack_plan",
    "read_buffer",
    "read_plan",
    "sealed",
    "unpack",
    "unpack_object",
)

MAX_PLAN = 8 << 20  # bytes of a plan; a larger one has a frame inside, which takes seconds for each 100 MB

_ADD_SEALS, _GET_SEALS = 1033, 1034  # fcntl.F_ADD_SEALS, fcntl.F_GET_SEALS
_SHRINK, _GROW, _WRITE, _SEAL = 0x2, 0x4, 0x8, 0x1
_STEP = 1 << 20  # bytes or characters that are copied at once, which holds the GIL
_PLAIN = (bool, int, float, str, bytes)
_combines = False  # set once; any thread reads
_SEALS = _SHRINK | _GROW | _WRITE | _SEAL

Place: TypeAlias = "bytes | int"  # bytes, or the index of the descriptor of a file with them
Packed: TypeAlias = "tuple[Place, list[Place], list[tuple[type, Place]], list[tuple[type, Place]]]"


class _Limited:
    """A file that takes at most `MAX_PLAN` bytes. Not an `io.BytesIO`, to which Polars writes all at the end."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_full = False

    def write(self, data: bytes) -> int:
        """Write *data*.

        Raises:
            OSError: it would exceed the limit.
        """
        self.is_full = len(self.data) + len(data) > MAX_PLAN
        if self.is_full:
            raise OSError
        self.data += data
        return len(data)

    def flush(self) -> None:
        """Do nothing: everything has been written."""


def pack_plan(lf: pl.LazyFrame, engine: str) -> bytes:
    """Return the plan of *lf* as bytes, for the engine with that class name.

    A plan with a large frame inside is refused while its first bytes are written, before seconds are spent on the rest.
    A search for such frames beforehand would make Polars resolve the plan, and so read files in this process.

    Raises:
        NotSendable: it has a large frame inside, or something that exists in this process only.
        PolarsForked: see `greendata.engines.after_fork`.
    """
    file = _Limited()
    try:
        lf.serialize(file)  # type: ignore[call-overload]  # a file of ours
    except PolarsForked:
        raise
    except Exception as error:
        if file.is_full:
            raise NotSendable(
                f"the plan has more than {MAX_PLAN >> 20} MiB, so a frame is inside; send it once, with "
                f"{engine}.share(df), and query the LazyFrame that this returns, or scan a file"
            ) from error
        raise NotSendable(f"the plan cannot be serialized ({_first_line(error)}){remedy_for(error)}") from error
    return bytes(file.data)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def read_plan(plan: bytes) -> pl.LazyFrame:
    """Return the query that `pack_plan` has packed.

    Raises:
        NotSendable: this process cannot import what is in it.
    """
    try:
        return pl.LazyFrame.deserialize(plan)
    except Exception as error:
        reason = f"a child cannot read the plan, whose functions it has to import ({_first_line(error)})"
        raise NotSendable(f"{reason}{remedy_for(error)}") from error


def pack_options(options: Mapping[str, Any]) -> bytes:
    """Return the keyword arguments of an engine's method as bytes.

    Raises:
        Exception: an argument cannot be pickled.
    """
    packed = dict(options)
    if (flags := packed.pop("optimizations", None)) is not None:
        flags = read_flags(flags)
    is_plain = all(value is None or isinstance(value, _PLAIN) for value in packed.values())
    return pickle.dumps((flags, packed)) if is_plain else dumps((flags, packed))  # cloudpickle takes 25 us more


def options_of(packed: bytes) -> dict[str, Any]:
    """Return the keyword arguments that `pack_options` has packed."""
    flags, options = pickle.loads(packed)  # both ends are ours
    if flags is not None:
        options["optimizations"] = flags_of(flags)
    return options  # type: ignore[no-any-return]


def pack_object(value: object) -> tuple[Packed, list[int]]:
    """Return *value* packed: its pickle, and the frames, blobs and buffers that `_pickler` puts aside; and descriptors.

    The descriptors are those of files, which belong to the caller.

    Raises:
        Exception: it cannot be pickled.
    """
    written = _Written()
    pickler = _pickler()(written)
    pickler.dump(value)
    frames, files = pack(pickler.frames)

    def place_of(data: Any) -> Place:
        if len(files) == MAX_DESCRIPTORS:
            return b"".join(_pieces_of(data))
        files.append(sealed(_pieces_of(data)))
        return len(files) - 1

    try:
        place = written.getvalue() if written.tell() < MAX_INLINE else place_of(written.getbuffer())
        blobs = [(kind, place_of(each)) for kind, each in pickler.blobs]
        buffers = [(kind, place_of(each)) for kind, each in pickler.buffers]
    except BaseException:
        close_all(files)
        raise
    return (place, frames, blobs, buffers), files


def unpack_object(packed: Packed, files: list[int]) -> Any:
    """Return the object that `pack_object` has packed.

    Raises:
        OSError: files have not arrived, because this process has no more descriptors.
    """
    place, frames, blobs, buffers = packed
    _check_arrived([place, *frames, *(place for _, place in blobs + buffers)], files)
    data = _content_of(bytes, place, files)
    unpickler = _Unpickler(_Pieces(data), buffers=[_content_of(kind, place, files) for kind, place in buffers])
    unpickler.frames = unpack(frames, files)  # both ends are ours
    unpickler.blobs = [_content_of(kind, place, files) for kind, place in blobs]
    return unpickler.load()


@cache
def _pickler() -> Any:
    """Return a pickler that puts frames aside, and large texts, bytes and buffers. It is cloudpickle's if there is one.

    A pickle would take seconds for a frame of 100 MB. It holds the GIL while it copies the others, files do not.
    """
    kinds: set[type] = {bytes, bytearray, str}
    try:
        base: Any = import_module("cloudpickle").Pickler
        kinds.add(memoryview)  # cloudpickle makes it bytes
    except ImportError:
        base = pickle.Pickler

    class DataAside(base):  # type: ignore[misc]
        def __init__(self, file: BytesIO) -> None:
            super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL, buffer_callback=self._is_kept)
            self.frames: list[pl.DataFrame] = []
            self.blobs: list[tuple[type, Any]] = []
            self.buffers: list[tuple[type, memoryview]] = []
            self._numbers: dict[int, int] = {}  # by id

        def persistent_id(self, value: Any) -> tuple[bool, int] | None:
            """Return whether *value* is among the blobs, and its number; None if it is pickled."""
            kind = type(value)
            if kind in kinds:
                if len(value) < MAX_INLINE or (kind is memoryview and not value.c_contiguous):
                    return None
                return True, self._number(value, self.blobs, (bytes if kind is memoryview else kind, value))
            return (False, self._number(value, self.frames, value)) if kind is pl.DataFrame else None

        def _number(self, value: object, aside: list[Any], item: Any) -> int:
            if id(value) not in self._numbers:
                self._numbers[id(value)] = len(aside)
                aside.append(item)
            return self._numbers[id(value)]

        def _is_kept(self, buffer: pickle.PickleBuffer) -> bool:
            """Return True if *buffer* is so small that it is pickled. Otherwise put it aside."""
            data = buffer.raw()
            if data.nbytes >= MAX_INLINE:
                self.buffers.append((bytes if data.readonly else bytearray, data))
            return data.nbytes < MAX_INLINE

    return DataAside


class _Written(BytesIO):
    """A pickle that is written. pickle calls `write` for each 64 KiB, and with that lets the hub have the GIL."""

    def __init__(self) -> None:
        super().__init__()
        self._gil = GilReleaser()

    def write(self, data: Any) -> int:
        """Write *data*."""
        self._gil.release_if_due()
        return super().write(data)


class _Pieces(BytesIO):
    """A pickle in pieces. pickle calls `peek` for each 128 KiB, and with that lets the hub have the GIL.

    The values of half a million dicts held it for 0.2 s otherwise.
    """

    def peek(self, size: int) -> bytes:
        """Return the next *size* bytes without reading them."""
        position = self.tell()
        piece = self.read(size)
        self.seek(position)
        return piece


class _Unpickler(pickle.Unpickler):
    frames: list[pl.DataFrame]
    blobs: list[Any]

    def persistent_load(self, place: tuple[bool, int]) -> object:
        """Return the frame or the blob with that number."""
        is_blob, number = place
        return self.blobs[number] if is_blob else self.frames[number]


def pack(frames: list[pl.DataFrame], most_inline: int = MAX_INLINE) -> tuple[list[bytes | int], list[int]]:
    """Return each frame as an IPC stream or as the index of a sealed file in memory, and the descriptors of the files.

    Frames of less than *most_inline* bytes are streams. The files belong to the caller.

    Raises:
        NotSendable: a column has Python objects.
    """
    files: list[int] = []
    packed: list[bytes | int] = []
    try:
        for frame in frames:
            _check(frame)
            if frame.estimated_size() < most_inline or len(files) == MAX_DESCRIPTORS:
                buffer = BytesIO()
                frame.write_ipc_stream(buffer, compat_level=pl.CompatLevel.newest())
                packed.append(buffer.getvalue())
            else:
                packed.append(len(files))
                files.append(_file_of(frame))
    except BaseException:
        close_all(files)
        raise
    return packed, files


def _check(frame: pl.DataFrame) -> None:
    for name, dtype in frame.schema.items():
        if pl.Object in _parts(dtype):
            raise NotSendable(f"column {name!r} has dtype {dtype}: Polars would send addresses of its Python objects")


def _file_of(frame: pl.DataFrame) -> int:
    file = os.memfd_create("greendata", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        frame.write_ipc_stream(f"/proc/self/fd/{file}", compat_level=pl.CompatLevel.newest())
        fcntl.fcntl(file, _ADD_SEALS, _SEALS)
    except BaseException:
        os.close(file)
        raise
    return file


def sealed(pieces: Iterable[Any]) -> int:
    """Return the descriptor of a sealed file in memory with *pieces*, objects with the buffer protocol."""
    file = os.memfd_create("greendata", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for piece in pieces:
            left = memoryview(piece)
            while left:
                left = left[os.write(file, left) :]
        fcntl.fcntl(file, _ADD_SEALS, _SEALS)
    except BaseException:
        os.close(file)
        raise
    return file


def _pieces_of(data: Any) -> Iterator[Any]:
    """Yield the bytes of *data*, text or a buffer. Text is encoded in pieces, because that holds the GIL."""
    if not isinstance(data, str):
        yield memoryview(data).cast("B")
        return
    for begin in range(0, len(data), _STEP):
        yield data[begin : begin + _STEP].encode("utf-8", "surrogatepass")


def unpack(packed: list[bytes | int], files: list[int]) -> list[pl.DataFrame]:
    """Return the frames that `pack` has packed. Large ones are mapped, without a copy, if pyarrow is there.

    Raises:
        OSError: files have not arrived, because this process has no more descriptors.
        ValueError: a file is not sealed. Somebody could change it, or cut it short, which would end the process.
    """
    _check_arrived(packed, files)
    return [pl.read_ipc_stream(BytesIO(each)) if isinstance(each, bytes) else _mapped(files[each]) for each in packed]


def _check_arrived(packed: list[Place], files: list[int]) -> None:
    if sum(isinstance(each, int) for each in packed) > len(files):
        raise OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)}: data have come in a file that cannot be opened")


def _content_of(kind: type, place: Place, files: list[int]) -> Any:
    """Return what is at *place*, as *kind*: bytes, bytearray or str."""
    if isinstance(place, bytes):
        return place.decode("utf-8", "surrogatepass") if kind is str else kind(place)
    with open(f"/proc/self/fd/{files[place]}", "rb", buffering=0) as file:
        if kind is bytes:
            return file.readall()
        pieces: Iterator[bytes] = iter(partial(file.read, _STEP), b"")
        if kind is str:
            return text_of(pieces, errors="surrogatepass")
        whole = bytearray()
        for piece in pieces:
            whole += piece
        return whole


def combine_chunks() -> None:
    """Have `unpack` copy large frames so that their columns have one chunk: this process lacks Polars' threads."""
    global _combines
    _combines = True


def _mapped(file: int) -> pl.DataFrame:
    wanted = _SHRINK | _GROW | _WRITE
    if fcntl.fcntl(file, _GET_SEALS) & wanted != wanted:
        raise ValueError("the file with the frame is not sealed")
    path = f"/proc/self/fd/{file}"
    try:
        pyarrow: Any = import_module("pyarrow")
        with pyarrow.memory_map(path) as source:
            return _read_stream(pyarrow, source)
    except (ImportError, NotImplementedError):  # it is not installed, or does not know the dtype: Int128, UInt128
        return pl.read_ipc_stream(path)


def read_buffer(buffer: Any) -> pl.DataFrame:
    """Return the frame whose IPC stream is in *buffer*, an object with the buffer protocol, without a copy if possible.

    See `unpack`. The frame keeps *buffer*, which nobody may change.
    """
    try:
        pyarrow: Any = import_module("pyarrow")
        return _read_stream(pyarrow, pyarrow.py_buffer(buffer))
    except (ImportError, NotImplementedError):
        return pl.read_ipc_stream(BytesIO(buffer))


def _read_stream(pyarrow: Any, source: Any) -> pl.DataFrame:
    table = pyarrow.ipc.open_stream(source).read_all()
    frame = pl.from_arrow(table.combine_chunks() if _combines else table, rechunk=False)
    assert isinstance(frame, pl.DataFrame)
    frame.columns = table.column_names  # Polars renames a column whose name is empty
    return frame


def _parts(dtype: Any) -> list[Any]:
    """Return *dtype* and all dtypes inside it."""
    if isinstance(dtype, pl.Struct):
        return [dtype, *(part for field in dtype.fields for part in _parts(field.dtype))]
    inner = getattr(dtype, "inner", None)
    return [dtype] if inner is None else [dtype, *_parts(inner)]
