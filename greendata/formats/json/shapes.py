r"""Shapes: the common structure of many JSON rows, as one regular expression that recognizes them.

A row that matches the pattern of a shape is valid JSON. It has each key of the shape once, in the order of the shape.
Its values are null or can be stored exactly in columns of the shape's dtypes: integers of up to 18 digits, numbers of
up to 15 digits before the point, and valid Unicode strings. Polars reads such a row as pydantic does.

A row does not match where Polars would guess, round or ignore something: a key that occurs twice or not at all, ``1.0``
among integers, ``1e400``, ``NaN``, or a lone surrogate.
"""

from __future__ import annotations

import json
from abc import ABC
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from typing import Any

import polars as pl

from greendata.schema.codecs import Dtype

__all__ = ("Kind", "Mapped", "Shape", "ShapeError", "kind_of", "levels_of", "shape_of")

PATTERN = 1 << 16  # characters, at most: compiling a longer pattern takes more time than it saves

_SPACE = r"[ \t\n\r]*"
_STRING = (
    r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u(?:[0-9A-CE-Fa-ce-f][0-9A-Fa-f]{3}|[dD][0-7][0-9A-Fa-f]{2}'
    r'|[dD][89ABab][0-9A-Fa-f]{2}\\u[dD][C-Fc-f][0-9A-Fa-f]{2}))*"'
)
_INTEGER = r"(?:0|-?[1-9][0-9]{0,17})"
_NUMBER = r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,17})?(?:[eE][+-]?[0-9]{1,2})?"
_SCALAR = rf"null|true|false|{_NUMBER}|{_STRING}"


class ShapeError(Exception):
    """A row does not have a shape. It is validated on its own."""


class Kind(ABC):
    """The kind of the values of one key. Each of them may be null.

    Attributes:
        pattern: the regular expression for a value that is not null.
        dtype: the dtype of the column of these values, or None for values that get no column.
    """

    pattern: str
    dtype: pl.DataType | None

    @property
    def value(self) -> str:
        """The regular expression for a value, null included."""
        return f"(?:null|{self.pattern})"

    def generalized(self, known: Kind | None) -> Kind:
        """Return this kind, extended by the kind that is *known* from other values of the same key."""
        return self


@dataclass(frozen=True, slots=True)
class _Scalar(Kind):
    """Values that do not nest."""

    pattern: str
    dtype: pl.DataType | None

    def generalized(self, known: Kind | None) -> Kind:
        """See `Kind.generalized`."""
        if known is not None and (self is NULL or (self is INTEGER and known is NUMBER)):
            return known
        return self


NULL = _Scalar("null", pl.Null())
BOOLEAN = _Scalar("true|false", pl.Boolean())
INTEGER = _Scalar(_INTEGER, pl.Int64())
NUMBER = _Scalar(_NUMBER, pl.Float64())
STRING = _Scalar(_STRING, pl.String())


@dataclass(frozen=True, slots=True)
class _Array(Kind):
    """Arrays of values of one kind."""

    items: Kind
    may_be_null: bool = True

    @property
    def value(self) -> str:
        """See `Kind.value`."""
        return f"(?:null|{self.pattern})" if self.may_be_null else self.pattern

    @property
    def pattern(self) -> str:  # type: ignore[override]
        """See `Kind`."""
        item = f"{_SPACE}{_short(self.items.value)}{_SPACE}"  # twice in the pattern: its length doubles with each level
        return rf"\[(?:(?:{item},)*{item}|{_SPACE})\]"

    @property
    def dtype(self) -> pl.DataType | None:  # type: ignore[override]
        """See `Kind`."""
        inner = self.items.dtype
        return None if inner is None else pl.List(inner)

    def generalized(self, known: Kind | None) -> Kind:
        """See `Kind.generalized`."""
        return _Array(self.items.generalized(known.items)) if isinstance(known, _Array) else self


@dataclass(frozen=True, slots=True)
class Mapped(Kind):
    """Objects with any keys, whose values have one kind that does not nest. Their column has pairs of key and value.

    Attributes:
        values: the kind of the values.
    """

    values: Kind

    @property
    def pattern(self) -> str:  # type: ignore[override]
        """See `Kind`."""
        pair = f"{_SPACE}{_STRING}{_SPACE}:{_SPACE}{self.values.value}{_SPACE}"
        return rf"\{{(?:(?:{pair},)*{pair}|{_SPACE})\}}"

    @property
    def dtype(self) -> pl.DataType | None:  # type: ignore[override]
        """See `Kind`."""
        return pl.List(pl.Struct({"key": pl.String(), "value": self.values.dtype or pl.Null()}))

    def generalized(self, known: Kind | None) -> Kind:
        """See `Kind.generalized`."""
        return Mapped(self.values.generalized(known.values)) if isinstance(known, Mapped) else self

    def pairs(self, texts: pl.Series) -> pl.Series:
        """Return the pairs of each object in *texts*, which are values of this kind.

        Example:
            >>> Mapped(INTEGER).pairs(pl.Series(['{"a": 1}', "null"])).to_list()
            [[{'key': 'a', 'value': 1}], None]
        """
        pair = f"({_STRING}){_SPACE}:{_SPACE}({self.values.value})"
        lists = (
            texts.str.replace_all(pair, '{"key":${1},"value":${2}}').str.replace(r"^\{", "[").str.replace(r"\}$", "]")
        )
        return lists.str.json_decode(self.dtype)


@dataclass(frozen=True, slots=True)
class Shape(Kind):
    """Objects with the same keys in the same order.

    Attributes:
        fields: the keys, and the kinds of their values.
    """

    fields: tuple[tuple[str, Kind], ...]

    @property
    def pattern(self) -> str:  # type: ignore[override]
        """See `Kind`."""
        return self._pattern(())

    @property
    def dtype(self) -> pl.DataType | None:  # type: ignore[override]
        """See `Kind`."""
        schema = self.schema
        return pl.Struct(schema) if schema else None

    @property
    def schema(self) -> pl.Schema:
        """The schema of the columns of these keys."""
        dtypes = ((key, kind.dtype) for key, kind in self.fields)
        return pl.Schema({key: dtype for key, dtype in dtypes if dtype is not None})

    def row(self, captured: Container[str] = ()) -> str:
        """Return the pattern of a whole row. It captures the values of the keys *captured*, in their order.

        Raises:
            ShapeError: lists nest so deep that it would be too long.
        """
        return f"^{_SPACE}{self._pattern(captured)}{_SPACE}$"

    def of_columns(self) -> Shape:
        """Return the shape of an object that has, for each key, an array of such values."""
        return Shape(tuple((key, _Array(kind, may_be_null=False)) for key, kind in self.fields))

    def generalized(self, known: Kind | None) -> Shape:
        """See `Kind.generalized`."""
        kinds = dict(known.fields) if isinstance(known, Shape) else {}
        return Shape(tuple((key, kind.generalized(kinds.get(key))) for key, kind in self.fields))

    def _pattern(self, captured: Container[str]) -> str:
        members = (
            rf"{_SPACE}{_key_pattern(key)}{_SPACE}:{_SPACE}"
            + (f"({kind.value})" if key in captured else kind.value)
            + _SPACE
            for key, kind in self.fields
        )
        return rf"\{{{','.join(members) or _SPACE}\}}"


def _anything(depth: int) -> str:
    """Return the pattern of any value that nests up to *depth* levels, for keys that get no column."""
    member = f"{_SPACE}{_STRING}{_SPACE}:{_SPACE}"

    def nested(inner: str, _: int) -> str:
        item, pair = f"{_SPACE}(?:{inner}){_SPACE}", f"{member}(?:{inner}){_SPACE}"
        return rf"{_SCALAR}|\[(?:(?:{item},)*{item}|{_SPACE})\]|\{{(?:(?:{pair},)*{pair}|{_SPACE})\}}"

    return reduce(nested, range(depth), _SCALAR)


ANYTHING = _Scalar(_anything(1), None)


def kind_of(dtype: Dtype) -> Kind:
    """Return the likely kind of the values of a column of *dtype*, for use before any value was seen.

    Example:
        >>> kind_of(pl.List(pl.Float32)).dtype
        List(Float64)
    """
    if dtype.is_integer():
        return INTEGER
    if dtype.is_float():
        return NUMBER
    match dtype:
        case pl.Boolean():
            return BOOLEAN
        case pl.Struct():
            return Shape(tuple((field.name, kind_of(field.dtype)) for field in dtype.fields))
        case pl.List(inner=pl.Struct()):  # it may be a dict with unknown keys
            return NULL
        case pl.List() | pl.Array():
            return _Array(kind_of(dtype.inner))
    return STRING


def shape_of(text: str, wanted: Mapping[str, Dtype], known: Kind | None) -> Shape:
    r"""Return the shape of a row.

    Args:
        text: the text of the row.
        wanted: the keys that get a column, with the final dtype of the column. A value that nests deeper than this
            dtype has no shape: the time for patterns and readers grows faster with the depth than the text does.
        known: the kinds known from other rows.

    Raises:
        ShapeError: the row does not have a shape.

    Example:
        >>> shape = shape_of('{"a": 1, "b": [2.5], "c": null}', {"a": pl.Int8(), "b": pl.List(pl.Float64)}, None)
        >>> dict(shape.schema)
        {'a': Int64, 'b': List(Float64)}
    """
    try:
        row = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ShapeError from error
    if not isinstance(row, _Pairs):
        raise ShapeError
    if sum(key not in wanted for key, _ in row) * len(ANYTHING.pattern) > PATTERN:
        raise ShapeError
    kinds = dict(known.fields) if isinstance(known, Shape) else {}
    fields = tuple(
        (key, _kind_in(wanted[key], value, kinds.get(key)) if key in wanted else ANYTHING) for key, value in row
    )
    if len(dict(fields)) < len(fields):
        raise ShapeError
    shape = Shape(fields).generalized(known)
    _short(shape.row())
    return shape


class _Pairs(list[Any]):
    """The members of an object."""


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def levels_of(dtype: Dtype) -> int:
    """Return the depth of lists and structs in *dtype*; 0 for a dtype that does not nest.

    Example:
        >>> levels_of(pl.List(pl.Struct({"a": pl.Int64})))
        2
    """
    if isinstance(dtype, pl.List | pl.Array):
        return 1 + levels_of(dtype.inner)
    return 1 + max(levels_of(field.dtype) for field in dtype.fields) if isinstance(dtype, pl.Struct) else 0


def _kind_in(dtype: Dtype, value: Any, known: Kind | None) -> Kind:
    """Return the kind of *value*, for a column of *dtype*."""
    if isinstance(known, Mapped) and isinstance(value, _Pairs):
        none: Kind = NULL
        with suppress(ShapeError):
            return Mapped(reduce(_common, (_kind(item, 0) for _, item in value), none))
    return _kind(value, levels_of(dtype))


def _kind(value: Any, levels: int) -> Kind:
    if levels == 0 and isinstance(value, list):
        raise ShapeError
    match value:
        case None:
            return NULL
        case bool():
            return BOOLEAN
        case int():
            return INTEGER
        case float():
            return NUMBER
        case str():
            return STRING
        case _Pairs():
            return _shape(value, levels)
    none: Kind = NULL
    return _Array(reduce(_common, (_kind(item, levels - 1) for item in value), none))


def _shape(pairs: Iterable[tuple[str, Any]], levels: int) -> Shape:
    fields = tuple((key, _kind(value, levels - 1)) for key, value in pairs)
    if not fields or len(dict(fields)) < len(fields):  # Polars cannot read structs without fields
        raise ShapeError
    return Shape(fields)


def _common(a: Kind, b: Kind) -> Kind:
    """Return the kind of the values of both kinds. Raise ShapeError if there is none."""
    if b is NULL or a == b or (a is NUMBER and b is INTEGER):
        return a
    if a is NULL or (a is INTEGER and b is NUMBER):
        return b
    if isinstance(a, _Array) and isinstance(b, _Array):
        return _Array(_common(a.items, b.items))
    if isinstance(a, Shape) and isinstance(b, Shape) and [*dict(a.fields)] == [*dict(b.fields)]:
        kinds = zip(a.fields, b.fields, strict=True)
        return Shape(tuple((key, _common(one, other)) for (key, one), (_, other) in kinds))
    raise ShapeError


def _short(pattern: str) -> str:
    """Return *pattern*, or raise ShapeError if it is too long."""
    if len(pattern) > PATTERN:
        raise ShapeError
    return pattern


def _key_pattern(key: str) -> str:
    """Return the pattern of a key, written plainly or with escapes."""
    return '"' + "".join(map(_char_pattern, key)) + '"'


def _char_pattern(sign: str) -> str:
    code = ord(sign)
    if sign.isascii() and sign.isalnum():
        return sign
    if code < 32:
        raise ShapeError
    if sign in '"\\':
        return rf"\\\x{{{code:x}}}"
    if sign.isascii():
        return rf"\x{{{code:x}}}"
    units = sign.encode("utf-16-be", "surrogatepass").hex()
    escaped = "".join(rf"\\u(?i:{units[at : at + 4]})" for at in range(0, len(units), 4))
    if 0xD800 <= code <= 0xDFFF:
        raise ShapeError
    return rf"(?:\x{{{code:x}}}|{escaped})"
