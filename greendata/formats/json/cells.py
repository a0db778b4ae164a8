"""Compare the cells of a frame that Polars has read from JSON with the values in the JSON text.

Polars infers one type for all rows of a column. So a value may be rounded, become text, or be put into a list, because
of other values in its column. A comparison finds each such value, whatever the reason. With a schema, values are
converted to the types of the schema in the same way. Both checks hold the GIL for some microseconds per row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import polars as pl

from greendata.schema.codecs import Column, ColumnCodec, ListCodec, StructCodec
from greendata.schema.dtypes import plain_of
from greendata.schema.failures import shown_value

__all__ = ("CellMismatch", "check_kind", "compare")


class CellMismatch(Exception):
    """A cell of a frame differs from its value in JSON. Raised and caught within greendata only."""


def compare(row: Any, cells: Mapping[str, Any], columns: Sequence[Column] | None) -> None:
    """Raise CellMismatch if *cells*, a row of a frame, differ from the JSON object *row*.

    Args:
        row: the parsed JSON object.
        cells: the cells, by name.
        columns: the columns of a model, or None. With a model, a string must not stand for a number or a boolean, and
            null must not stand for an absent key, unless the model's default for that key is None. Without a model,
            both are allowed.

    Example:
        >>> compare({"a": 1}, {"a": 1.0, "b": None}, None)
        >>> compare({"a": True}, {"a": 1.0}, None)
        Traceback (most recent call last):
        greendata.formats.json.cells.CellMismatch: a: True would become 1.0 because of other values
    """
    if row != cells or columns is None:  # True == 1
        _compare_members(row, cells, columns or (), "", is_open=True, is_text=columns is None)


def check_kind(value: Any, dtype: Any, place: str) -> None:
    """Raise CellMismatch if Polars converts the JSON *value* to *dtype* although it is of another kind.

    Polars puts a value into a list, makes text of a list or an object, and reads numbers as base64.

    Args:
        place: the path to the value, for the error.

    Example:
        >>> check_kind([1, None], pl.List(pl.Int8), "a")
        >>> check_kind([1, [2]], pl.List(pl.String), "a")
        Traceback (most recent call last):
        greendata.formats.json.cells.CellMismatch: a.1: expected a value of type String, got [2]
    """
    if value is None:
        return
    dtype = plain_of(dtype)
    match dtype:
        case pl.List() | pl.Array() if isinstance(value, list):
            for at, item in enumerate(value):
                check_kind(item, dtype.inner, f"{place}.{at}")
            return
        case pl.Struct() if isinstance(value, dict):
            for field in dtype.fields:
                check_kind(value.get(field.name), field.dtype, f"{place}.{field.name}")
            return
        case pl.Binary() if isinstance(value, str):
            return
        case pl.List() | pl.Array() | pl.Struct() | pl.Binary() | pl.Null():
            pass
        case _ if not isinstance(value, list | dict):
            return
    raise CellMismatch(f"{place}: expected a value of type {dtype}, got {_shown(value)}")


def _compare(value: Any, cell: Any, form: ColumnCodec | None, place: str, *, is_open: bool, is_text: bool) -> None:
    """Raise CellMismatch if *cell* differs from the JSON *value*.

    Args:
        form: the codec of its column, or None if it has no column.
        place: the path to the value, for the error.
        is_open: True if the value is not in a field of a model, so that an absent key is the same as null.
        is_text: True if a string may stand for a number or a boolean.
    """
    if isinstance(value, dict) and isinstance(cell, dict):
        is_model = isinstance(form, StructCodec) and not form.is_tuple
        columns = form.columns if isinstance(form, StructCodec) and is_model else ()
        _compare_members(value, cell, columns, place, is_open=is_open or is_model, is_text=is_text)
    elif isinstance(value, list) and isinstance(cell, list) and len(value) == len(cell):
        inner = form.items if isinstance(form, ListCodec) else None
        for at, (item, inner_cell) in enumerate(zip(value, cell, strict=True)):
            _compare(item, inner_cell, inner, f"{place}.{at}", is_open=is_open, is_text=is_text)
    elif not (_is_same(value, cell) or (is_text and _is_text_of(value, cell))):
        raise CellMismatch(f"{place}: {_shown(value)} would become {_shown(cell)} because of other values")


def _compare_members(
    row: Mapping[str, Any],
    cells: Mapping[str, Any],
    columns: Sequence[Column],
    place: str,
    *,
    is_open: bool,
    is_text: bool,
) -> None:
    """Raise CellMismatch if *cells* differ from the members of the JSON object *row*."""
    known = {source: column for column in columns for source in column.sources}
    for key in {**cells, **row}:
        column = known.get(key)
        inside = f"{place}.{key}" if place else key
        if key in row:
            form = None if column is None else column.codec
            try:
                _compare(row[key], cells.get(key), form, inside, is_open=is_open and column is None, is_text=is_text)
            except CellMismatch as mismatch:
                if column is None or not column.is_hidden:
                    raise
                raise CellMismatch(f"{inside}: the value would change because of other values") from mismatch
        elif cells[key] is not None or not (is_open if column is None else _is_null_without(column)):
            raise CellMismatch(f"{inside}: the key is absent, and would become null because other objects have it")


def _is_same(value: Any, cell: Any) -> bool:
    if isinstance(cell, Decimal) and type(value) in (int, float):
        return Decimal(repr(value)) == cell
    return bool(value == cell) and isinstance(value, bool) is isinstance(cell, bool)


def _is_text_of(value: Any, cell: Any) -> bool:
    if not isinstance(cell, str) or not isinstance(value, int | float):
        return False
    try:
        parsed = json.loads(cell)
    except ValueError:
        return False
    return bool(parsed == value) and isinstance(parsed, bool) is isinstance(value, bool)


def _is_null_without(column: Column) -> bool:
    """Return True if the model's value for an absent key is None."""
    return column.missing == "fixed" and column.default is None


def _shown(value: Any) -> str:
    text = shown_value(value)
    return repr(text) if isinstance(value, str) else str(text)
