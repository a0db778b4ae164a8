"""Read an Arrow C stream one record batch at a time, with the GIL released while its producer works.

Polars' own reader of single batches (`polars.scan_arrow_c_stream`) and that of nanoarrow hold the GIL while they wait
for the next batch: a query that returns nothing for a second blocks the hub for a second. A foreign call through
ctypes releases the GIL. The structures are those of the Arrow C data interface, a stable ABI:
arrow.apache.org/docs/format/CDataInterface

Arrow specifies that text is UTF-8, and Polars does not check it: other bytes crash the process. Polars turns the time
24:00 into null. A database may hold both, so text is passed to Polars as bytes and times as integers, and a checked
cast makes text and times of them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import polars as pl
from polars.exceptions import PolarsError

from greendata.errors import ColumnUnreadable
from greendata.schema.column_names import frame_of

__all__ = ("ArrowReader", "DriverStream", "Field", "fields_of")

_ARRAY, _SCHEMA_NAME = b"arrow_array", b"arrow_schema"  # the name of a capsule must outlive it
_STORED = {b"u": b"z", b"U": b"Z", b"ttu": b"l"}  # Arrow's formats of text and times, and those of their storage
_TIME = "ttu"
_TYPE = b"POSTGRESQL:type"


class DriverStream(Protocol):
    """A stream that a driver returned. Its owner still has to release it."""

    @property
    def address(self) -> int:
        """The address of the ``ArrowArrayStream`` in memory."""


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a stream: its name, the format string of its Arrow type, and the name of its type in PostgreSQL."""

    name: str
    form: str
    kind: str
    inner: Field | None  # the items of a list


class _Schema(ctypes.Structure):
    pass


_SCHEMA = ctypes.POINTER(_Schema)
_Schema._fields_ = [
    ("format", ctypes.c_void_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_void_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(_SCHEMA)),
    ("dictionary", _SCHEMA),
    ("release", ctypes.CFUNCTYPE(None, _SCHEMA)),
    ("private_data", ctypes.c_void_p),
]


class _Array(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
        *((name, ctypes.c_void_p) for name in ("buffers", "children", "dictionary")),
        ("release", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("private_data", ctypes.c_void_p),
    )


class _Stream(ctypes.Structure):
    _fields_ = (
        ("get_schema", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)),
        ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)),
        ("get_last_error", ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


class _Batch:
    """One record batch that is passed to Polars, which moves it out of *array*."""

    def __init__(self, schema: _Schema, array: _Array) -> None:
        self._schema = schema
        self._array = array

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        schema = _new_capsule(ctypes.addressof(self._schema), _SCHEMA_NAME, None)
        return schema, _new_capsule(ctypes.addressof(self._array), _ARRAY, None)


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


def fields_of(schema: int) -> list[Field]:
    """Return the columns that the ``ArrowSchema`` at the address *schema* describes.

    Raises:
        ColumnUnreadable: a name is not UTF-8.
    """
    found = _Schema.from_address(schema)
    return [_field(found.children[number].contents) for number in range(found.n_children)]


class ArrowReader:
    """A context manager that reads the record batches of *stream* as frames. Call on one worker at a time.

    The caller still has to release the stream.

    Attributes:
        fields: the columns; set inside the block.

    Raises:
        OSError: the producer failed; the error has its message.
    """

    def __init__(self, stream: DriverStream) -> None:
        self._at = _Stream.from_address(stream.address)
        self._address = stream.address
        self._schema = _Schema()
        self._kept: list[tuple[_Schema, int, int | None]] = []  # what to restore before the schema's release
        self.fields: list[Field] = []

    def __enter__(self) -> ArrowReader:
        self._check(self._at.get_schema(self._address, ctypes.addressof(self._schema)))
        try:
            self.fields = fields_of(ctypes.addressof(self._schema))
            self._relabel_as_stored(self._schema)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for schema, form, metadata in self._kept:
            schema.format, schema.metadata = form, metadata
        self._schema.release(self._schema)

    def empty(self) -> pl.DataFrame:
        """Return a frame with the columns and without rows."""
        return self._decode_frame(pl.DataFrame(schema=pl.Schema(self)))

    def __arrow_c_schema__(self) -> object:
        """Return a capsule with the columns."""
        return _new_capsule(ctypes.addressof(self._schema), _SCHEMA_NAME, None)

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield the batches.

        Raises:
            ColumnUnreadable: text is not UTF-8, or a time is 24:00.
            OSError: the producer failed; the error has its message.
        """
        while True:
            array = _Array()
            self._check(self._at.get_next(self._address, ctypes.addressof(array)))
            if not array.release:
                return
            try:
                frame = pl.DataFrame(_Batch(self._schema, array))
            finally:
                if array.release:  # Polars did not take it
                    array.release(ctypes.addressof(array))
            yield self._decode_frame(frame)

    def _decode_frame(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame_of([_decoded(frame[field.name], field) for field in self.fields])

    def _relabel_as_stored(self, schema: _Schema) -> None:
        """Relabel text as bytes, times as integers, and the driver's extension types as their storage types."""
        form = ctypes.string_at(schema.format)
        self._kept.append((schema, schema.format, schema.metadata))
        schema.metadata = None
        if form in _STORED:
            schema.format = ctypes.cast(ctypes.c_char_p(_STORED[form]), ctypes.c_void_p).value
        for number in range(schema.n_children):
            self._relabel_as_stored(schema.children[number].contents)

    def _check(self, code: int) -> None:
        if code:
            text = self._at.get_last_error(self._address)
            raise OSError(code, text.decode(errors="replace") if text else "the driver gave no reason")


def _field(schema: _Schema) -> Field:
    try:
        name = schema.name.decode()
    except UnicodeDecodeError as error:
        raise ColumnUnreadable(schema.name.decode(errors="replace"), "has a name that is not UTF-8") from error
    form, kind = (
        ctypes.string_at(schema.format).decode(),
        _metadata(schema.metadata).get(_TYPE, b"").decode(errors="replace"),
    )
    return Field(name, form, kind, _field(schema.children[0].contents) if form in ("+l", "+L") else None)


def _metadata(address: int | None) -> dict[bytes, bytes]:
    """Decode Arrow's metadata: the number of pairs, then each key and value, both preceded by their length."""
    found: dict[bytes, bytes] = {}
    if address is None:
        return found
    at = address

    def number() -> int:
        nonlocal at
        at += 4
        return ctypes.c_int32.from_address(at - 4).value

    def text() -> bytes:
        nonlocal at
        length = number()
        at += length
        return ctypes.string_at(at - length, length)

    for _ in range(number()):
        key = text()
        found[key] = text()
    return found


def _decoded(series: pl.Series, field: Field) -> pl.Series:
    form = (field.inner or field).form
    dtype: pl.DataType | None = pl.String() if form in ("u", "U") else pl.Time() if form == _TIME else None
    if dtype is None:
        return series
    try:
        if form == _TIME:  # microseconds; Polars has nanoseconds
            series = series.list.eval(pl.element() * 1000) if field.inner else series * 1000
        return series.cast(pl.List(dtype) if field.inner else dtype)
    except PolarsError as error:
        is_time = form == _TIME
        reason = "holds the time 24:00, which Polars does not have" if is_time else "holds text that is not UTF-8"
        raise ColumnUnreadable(field.name, reason) from error
