"""The cells of a row of a frame that Polars has read from JSON, compared with the row's own values.

Polars infers types across rows: beside others a value may be rounded, become text, or be put into a list. A comparison
tells that of any value, whatever the reason. It holds the GIL for some microseconds a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from greendata.schema.codecs import Column, ColumnCodec, ListCodec, StructCodec
from greendata.schema.failures import text_of

__all__ = ("CellMismatch", "compare")


class CellMismatch(Exception):
    """What a frame has in the place of a value is not the value; the text says which. Never leaves the reading."""


def compare(row: Any, had: Mapping[str, Any], columns: Sequence[Column] | None) -> None:
    """Raise CellMismatch if *had*, the cells that a frame has for the JSON object *row*, are not what the object is.

    Args:
        columns: of a model: no value may be its text, and an absent key no null unless the model makes None of it.
            None for rows without one: a string may be the text of a number or a boolean, and null an absent key.

    Example:
        >>> compare({"a": 1}, {"a": 1.0, "b": None}, None)
        >>> compare({"a": True}, {"a": 1.0}, None)
        Traceback (most recent call last):
        greendata.formats.json.cells.CellMismatch: a: True would become 1.0 beside other values
    """
    if row != had or columns is None:  # True == 1
        _compare_members(row, had, columns or (), "", is_open=True, is_text=columns is None)


def _compare(value: Any, cell: Any, form: ColumnCodec | None, place: str, *, is_open: bool, is_text: bool) -> None:
    """Raise CellMismatch if *cell*, which a frame has for a *value*, is not what the value is.

    Args:
        form: of its column; None if it has none.
        is_open: True if it is in no field, so that nobody tells an absent key from null.
        is_text: True if a string may be the text of a number or a boolean.
    """
    if isinstance(value, dict) and isinstance(cell, dict):
        is_model = isinstance(form, StructCodec) and not form.is_tuple
        columns = form.columns if isinstance(form, StructCodec) and is_model else ()
        _compare_members(value, cell, columns, place, is_open=is_open or is_model, is_text=is_text)
    elif isinstance(value, list) and isinstance(cell, list) and len(value) == len(cell):
        inner = form.items if isinstance(form, ListCodec) else None
        for at, (item, had) in enumerate(zip(value, cell, strict=True)):
            _compare(item, had, inner, f"{place}.{at}", is_open=is_open, is_text=is_text)
    elif not (_is_same(value, cell) or (is_text and _is_text_of(value, cell))):
        raise CellMismatch(f"{place}: {_shown(value)} would become {_shown(cell)} beside other values")


def _compare_members(
    row: Mapping[str, Any],
    had: Mapping[str, Any],
    columns: Sequence[Column],
    place: str,
    *,
    is_open: bool,
    is_text: bool,
) -> None:
    """Raise CellMismatch if *had*, which a frame has for the object *row*, is not what the object is."""
    known = {source: column for column in columns for source in column.sources}
    for key in {**had, **row}:
        column = known.get(key)
        inside = f"{place}.{key}" if place else key
        if key in row:
            form = None if column is None else column.codec
            _compare(row[key], had.get(key), form, inside, is_open=is_open and column is None, is_text=is_text)
        elif had[key] is not None or not (is_open if column is None else _is_null_without(column)):
            raise CellMismatch(f"{inside}: the key is absent, and null in a frame that has it in other rows")


def _is_same(value: Any, cell: Any) -> bool:
    if isinstance(cell, Decimal) and type(value) in (int, float):
        return Decimal(repr(value)) == cell
    return bool(value == cell) and isinstance(value, bool) is isinstance(cell, bool)


def _is_text_of(value: Any, cell: Any) -> bool:
    if not isinstance(cell, str) or not isinstance(value, int | float):
        return False
    try:
        said = json.loads(cell)
    except ValueError:
        return False
    return bool(said == value) and isinstance(said, bool) is isinstance(value, bool)


def _is_null_without(column: Column) -> bool:
    """True if the model makes None of an absent key."""
    return column.missing == "fixed" and column.default is None


def _shown(value: Any) -> str:
    text = text_of(value)
    return repr(text) if isinstance(value, str) else str(text)
