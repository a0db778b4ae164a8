"""An Arrow C stream taken one record batch at a time, with the GIL released while its producer works.

Polars' own reader of single batches (`polars.scan_arrow_c_stream`) and nanoarrow's hold the GIL while they wait for
the next one: a query that is silent for a second silences the hub for a second. A foreign call through ctypes does not.
The structures are those of the Arrow C data interface, a stable ABI:
arrow.apache.org/docs/format/CDataInterface
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Protocol

import polars as pl

from greendata.errors import ColumnUnreadable

__all__ = ("ArrowStream", "frames_of", "schema_of_stream")

_NO_FORM = ("ti", "+u", "+r")  # Arrow's intervals, unions and run-end encoded arrays: Polars panics on some of them
_ARRAY = b"arrow_array"  # the name of a capsule must outlive it


class ArrowStream(Protocol):
    """A stream that a driver handed out, and that is still its owner's to release."""

    @property
    def address(self) -> int:
        """Where the ``ArrowArrayStream`` is."""

    def __arrow_c_schema__(self) -> object:
        """A capsule with a copy of its schema."""


class _Schema(ctypes.Structure):
    pass


_SCHEMA = ctypes.POINTER(_Schema)
_Schema._fields_ = [
    ("format", ctypes.c_char_p),
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
    """One record batch on its way to Polars, which moves it out of *array*."""

    def __init__(self, schema: object, array: _Array) -> None:
        self._schema = schema
        self._array = array

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        return self._schema, _new_capsule(ctypes.addressof(self._array), _ARRAY, None)


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


def schema_of_stream(stream: ArrowStream) -> pl.Schema:
    """The schema of *stream*, which is not consumed. Call on a worker.

    Raises:
        ColumnUnreadable: Polars has no form for the type of a column.
        OSError: the producer's own text.

    Example:
        >>> "time" in str(ColumnUnreadable("wait", "tin"))
        True
    """
    found = _Schema()
    _check(stream, _at(stream).get_schema(stream.address, ctypes.addressof(found)))
    try:
        for number in range(found.n_children):
            _check_form(found.children[number].contents)
    finally:
        found.release(found)
    return pl.Schema(stream)


def frames_of(stream: ArrowStream) -> Iterator[pl.DataFrame]:
    """The record batches of *stream* as frames. Call on a worker; the stream stays the caller's to release.

    Raises:
        OSError: the producer's own text.
    """
    get_next = _at(stream).get_next
    while True:
        array = _Array()
        _check(stream, get_next(stream.address, ctypes.addressof(array)))
        if not array.release:
            return
        try:
            frame = pl.DataFrame(_Batch(stream.__arrow_c_schema__(), array))
        finally:
            if array.release:  # Polars did not take it
                array.release(ctypes.addressof(array))
        yield frame


def _at(stream: ArrowStream) -> _Stream:
    return _Stream.from_address(stream.address)


def _check(stream: ArrowStream, code: int) -> None:
    if code:
        text = _at(stream).get_last_error(stream.address)
        raise OSError(code, text.decode(errors="replace") if text else "the driver gave no reason")


def _check_form(column: _Schema) -> None:
    form = column.format.decode()
    if form.startswith(_NO_FORM):
        raise ColumnUnreadable(column.name.decode(errors="replace"), form)
    for number in range(column.n_children):
        _check_form(column.children[number].contents)
