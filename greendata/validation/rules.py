"""Rules: Polars expressions for the values that pydantic certainly accepts, and for what it converts them to.

Each rule is derived from one node of pydantic's core schema, for a column of a given dtype. A rule need not recognise
every valid value: pydantic itself validates the values that the rule leaves undecided. A rule must never accept a
value that pydantic rejects, nor one that pydantic converts to something else. A node with a key that is not listed
here therefore gets no rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import reduce
from operator import and_, or_
from typing import Any

import polars as pl

from greendata.schema.codecs import ColumnCodec, Dtype, EncodeError, LeafCodec
from greendata.schema.durations import UNIT_DIGITS, duration_ticks
from greendata.schema.limits import NANOSECONDS, is_readable

__all__ = ("Context", "FALSE", "LEAF_RULES", "Rule", "TRUE", "all_of", "any_of", "has_only", "never_null")

Node = Mapping[str, Any]

DIGITS = 38  # of a Decimal column
EXACT = 2**53  # a Float64 holds every integer up to this one
NEAR = 16  # bytes of text; an integer that fits in these is small enough for Float64
BOUNDS = ("ge", "gt", "le", "lt")
EVERYWHERE = frozenset({"type", "strict", "metadata", "serialization", "ref"})

# Patterns of text that Rust, Polars and pydantic all parse in the same way.
WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"
WIDE_WHOLE = r"^[+-]?[0-9]+(?:\.0+)?$"  # for text without surrounding white space
NUMBER = r"^-?[0-9]{1,15}(\.[0-9]{1,15})?$"
WIDE_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"  # for text without surrounding white space
NO_WHOLE = r"[A-Za-z]|^\D*$"  # matches only text that is not an integer
NO_NUMBER = (
    r"[B-DG-HJ-MO-SU-XZb-dg-hj-mo-su-xz]|^[^\da-zA-Z]*$"  # matches only text that is not a number, inf, infinity or nan
)
NO_DIGIT = r"^\D*$"
EXACT_NUMBER = r"^-?(0|[1-9][0-9]{0,37})(\.[0-9]{0,%d})?$"
DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]{1,%d})?$"
ZONED = (  # years for which the local time in every zone is within Python's range
    r"^(000[2-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-8])-[0-9]{2}-[0-9]{2}"
    r"[T ][0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]{1,%d})?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])$"
)
WHITE = " \t\n\r"  # stripped by both Python and Rust
CLOCK = r"^[0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]{1,%d})?$"
SPAN = r"^-?P([0-9]{1,9}D)?(T(([01]?[0-9]|2[0-3])H)?([0-5]?[0-9]M)?([0-5]?[0-9](\.[0-9]{1,%d})?S)?)?$"
UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-%s[0-9a-f]{3}-%s[0-9a-f]{3}-[0-9a-f]{12}$"
TRUE = pl.lit(value=True)
FALSE = pl.lit(value=False)
YES = ("1", "on", "t", "true", "y", "yes")
NO = ("0", "f", "false", "n", "no", "off")


@dataclass(frozen=True, slots=True)
class Rule:
    """Expressions that decide about the values of a column.

    The rule of a leaf ignores nulls: `greendata.validation.nested.rule_of` handles them.

    Attributes:
        value: the converted values, as the codec of the field stores them; meaningless where not *accepted*.
        accepted: True where pydantic certainly accepts the values.
        rejected: True where pydantic certainly rejects the values.
    """

    value: pl.Expr
    accepted: pl.Expr = TRUE
    rejected: pl.Expr = FALSE


@dataclass(frozen=True, slots=True)
class Context:
    """What the meaning of a node depends on.

    Attributes:
        definitions: nodes that other nodes refer to, by their references.
        config: the configuration of the model that contains the node.
        strict: the strict mode that the caller sets; None leaves it to the node and the model.
        is_wide: True if rules shall decide about as many values as possible, even if they are slower.
    """

    definitions: Mapping[str, Node]
    config: Mapping[str, Any]
    strict: bool | None
    is_wide: bool = False

    def is_strict(self, node: Node) -> bool:
        """Return True if pydantic validates *node* in strict mode."""
        if self.strict is not None:
            return self.strict
        return bool(node.get("strict", self.config.get("strict", False)))


def has_only(node: Node, *keys: str) -> bool:
    """Return True if *node* has no keys except *keys* and those that do not affect validity."""
    return EVERYWHERE.issuperset(node.keys() - set(keys))


def all_of(*conditions: pl.Expr | None) -> pl.Expr:
    """Combine *conditions* with "and", ignoring None."""
    found = [condition for condition in conditions if condition is not None and condition is not TRUE]
    return reduce(and_, found) if found else TRUE


def any_of(*conditions: pl.Expr | None) -> pl.Expr:
    """Combine *conditions* with "or", ignoring None and `FALSE`."""
    found = [condition for condition in conditions if condition is not None and condition is not FALSE]
    return reduce(or_, found) if found else FALSE


def never_null(expr: pl.Expr, rule: Rule) -> pl.Expr:
    """Return where *rule* accepts values of *expr*. Nulls are not accepted, and the result is never null."""
    return all_of(expr.is_not_null(), rule.accepted).fill_null(value=False)


# -- leaves: one function per type of node, each with the arguments (node, context, expr, dtype, codec) --


def _int(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    if not (has_only(node, "multiple_of", *BOUNDS) and codec.dtype.is_integer()):
        return None
    value = expr.cast(codec.dtype, strict=False)
    lax, rejected = not context.is_strict(node), FALSE
    if dtype.is_integer():
        accepted = value.is_not_null() if dtype != codec.dtype else None
    elif dtype == pl.Boolean and lax:
        accepted = None
    elif dtype.is_float() and lax:
        accepted = all_of(expr.is_finite(), expr == expr.floor(), expr.abs() < EXACT, value.is_not_null())
    elif dtype == pl.String and lax and context.is_wide:
        value, accepted = _wide_whole(expr.str.strip_chars(WHITE), codec)
        rejected = expr.str.contains(NO_WHOLE)
    elif dtype == pl.String and lax:
        accepted = all_of(expr.str.contains(WHOLE), value.is_not_null())
    else:
        return None
    factor = node.get("multiple_of", 1)
    if not 0 < factor < 2**62 or isinstance(factor, float):
        return None
    divisible = (value.cast(pl.Int128) % factor == 0) if factor != 1 else None
    return _within(node, codec, Rule(value, all_of(accepted, divisible), rejected))


def _wide_whole(text: pl.Expr, codec: ColumnCodec) -> tuple[pl.Expr, pl.Expr]:
    """Return the integers in *text*, and where they are certain. Allows signs, leading zeros and a zero fraction."""
    short = pl.when(text.str.len_bytes() <= NEAR).then(text)
    value = pl.coalesce(
        text.cast(codec.dtype, strict=False), short.cast(pl.Float64, strict=False).cast(codec.dtype, strict=False)
    )
    return value, all_of(text.str.contains(WIDE_WHOLE), value.is_not_null())


def _float(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    if not (has_only(node, "allow_inf_nan", *BOUNDS) and codec.dtype.is_float()):
        return None
    lax = not context.is_strict(node)
    value, rejected = expr.cast(pl.Float64, strict=False), FALSE
    if dtype.is_float() or dtype.is_integer() or (dtype == pl.Boolean and lax):
        accepted = TRUE
    elif dtype == pl.String and lax and context.is_wide:
        text = expr.str.strip_chars(WHITE)
        value = text.cast(pl.Float64, strict=False)
        accepted, rejected = all_of(text.str.contains(WIDE_NUMBER), value.is_finite()), expr.str.contains(NO_NUMBER)
    elif dtype == pl.String and lax:
        accepted = expr.str.contains(NUMBER)
    else:
        return None
    if not node.get("allow_inf_nan", context.config.get("allow_inf_nan", True)):
        accepted = all_of(accepted, value.is_finite())
    elif node.keys() & {*BOUNDS}:
        accepted = all_of(accepted, value.is_not_nan())  # Polars sorts NaN above all numbers
    rule = _within(node, _FLOAT, Rule(value, accepted, rejected))
    if rule is None or codec.dtype == pl.Float64:
        return rule
    # The cast rounds to the nearest value. A finite value that becomes infinite is not accepted.
    narrow = value.cast(codec.dtype)
    return Rule(narrow, all_of(rule.accepted, ~narrow.is_infinite() | value.is_infinite()), rule.rejected)


def _bool(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    if not (has_only(node) and codec.dtype == pl.Boolean):
        return None
    if dtype == pl.Boolean:
        return Rule(expr)
    if context.is_strict(node):
        return None
    if dtype.is_integer():
        return Rule(expr == 1, (expr == 0) | (expr == 1), (expr != 0) & (expr != 1))
    if dtype == pl.String:
        word = expr.str.to_lowercase()
        return Rule(word.is_in(YES), word.is_in((*YES, *NO)), ~word.is_in((*YES, *NO)))
    return None


def _str(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    known = ("max_length", "min_length", "pattern", "regex_engine", "strip_whitespace", "to_lower", "to_upper")
    if not (
        has_only(node, *known) and isinstance(codec.dtype, pl.String | pl.Categorical | pl.Enum) and _is_text(dtype)
    ):
        return None
    options = {key: node.get(key, context.config.get("str_" + key)) for key in known}
    text = expr.cast(pl.String)
    accepted = None
    if is_changed := bool(options["strip_whitespace"] or options["to_lower"] or options["to_upper"]):
        # Only for ASCII are white space and case the same in Python and Polars.
        accepted = text.str.len_bytes() == text.str.len_chars()
        text = text.str.strip_chars(" \t\n\r\x0b\x0c") if options["strip_whitespace"] else text
    if options["min_length"]:
        accepted = all_of(accepted, text.str.len_chars() >= options["min_length"])
    if options["max_length"] is not None:
        accepted = all_of(accepted, text.str.len_chars() <= options["max_length"])
    if (pattern := node.get("pattern")) is not None:
        engine = node.get("regex_engine", context.config.get("regex_engine", "rust-regex"))
        if not isinstance(pattern, str) or engine != "rust-regex":
            return None
        accepted = all_of(accepted, text.str.contains(pattern))
    rejected = FALSE if accepted is None or is_changed else ~accepted
    if options["to_lower"]:
        text = text.str.to_lowercase()
    elif options["to_upper"]:
        text = text.str.to_uppercase()
    return _cast(text, codec, accepted, rejected)


def _bytes(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    is_text = dtype == pl.String and not context.is_strict(node) and "val_json_bytes" not in context.config
    if not (
        has_only(node, "max_length", "min_length") and codec.dtype == pl.Binary and (is_text or dtype == pl.Binary)
    ):
        return None
    value = expr.cast(pl.Binary)
    low, high = node.get("min_length"), node.get("max_length")
    at_least = None if low is None else value.bin.size() >= low
    return Rule(value, all_of(at_least, None if high is None else value.bin.size() <= high))


def _decimal(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    to = codec.dtype
    if not (has_only(node, "allow_inf_nan", "max_digits", "decimal_places", *BOUNDS) and isinstance(to, pl.Decimal)):
        return None
    if isinstance(dtype, pl.Decimal):
        scale = dtype.scale
    elif dtype.is_integer() and not context.is_strict(node):
        scale = 0
    elif dtype == pl.String and not context.is_strict(node):
        scale = min(to.scale, node.get("decimal_places", to.scale))  # digits allowed after the decimal point
    else:
        return None
    digits, places = node.get("max_digits"), node.get("decimal_places")
    if scale > min(to.scale, scale if places is None else places) or (digits is not None and places is None):
        return None
    # The number of digits before the decimal point.
    whole = (to.precision or DIGITS) - to.scale if digits is None else digits - places
    if whole < 1:
        return None
    is_exact = expr.str.contains(EXACT_NUMBER % scale) if dtype == pl.String else None
    value = (expr if is_exact is None else pl.when(is_exact).then(expr)).cast(to, strict=False)
    small = None if whole + to.scale >= DIGITS else value.abs() < pl.lit(Decimal(10) ** whole)
    rejected = expr.str.contains(NO_DIGIT) if dtype == pl.String and not node.get("allow_inf_nan") else FALSE
    return _within(node, codec, Rule(value, all_of(value.is_not_null(), is_exact, small), rejected))


def _date(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    if not (has_only(node, *BOUNDS) and codec.dtype == pl.Date):
        return None
    rejected = FALSE
    if dtype == pl.Date:
        value, accepted = expr, None
    elif dtype == pl.String and not context.is_strict(node):
        value, accepted = expr.str.to_date("%Y-%m-%d", strict=False), expr.str.contains(DAY)
        rejected = (accepted & value.is_null()) | expr.str.contains(NO_DIGIT)
    else:
        return None
    return _within(node, codec, Rule(value, all_of(accepted, is_readable(value, pl.Date())), rejected))


def _datetime(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    to = codec.dtype
    if not (has_only(node, "microseconds_precision", "tz_constraint", *BOUNDS) and isinstance(to, pl.Datetime)):
        return None
    zone, lax, rejected = to.time_zone, not context.is_strict(node), FALSE
    if node.get("tz_constraint") not in {None, "naive" if zone is None else "aware"}:
        return None
    unit = pl.Datetime("us", dtype.time_zone if isinstance(dtype, pl.Datetime) else None)
    micros = expr.cast(unit, strict=False)
    if isinstance(dtype, pl.Datetime) and (dtype.time_zone is None) is (zone is None):
        if dtype.time_unit == to.time_unit == "ns":
            if zone is not None:
                expr, micros = expr.dt.convert_time_zone(zone), micros.dt.convert_time_zone(zone)
            return _kept(node, codec, expr, micros, TRUE)
        accepted = all_of(is_readable(expr, dtype), micros.cast(dtype, strict=False) == expr)
    elif dtype == pl.Date and lax and zone is None:
        accepted = all_of(is_readable(expr, dtype))
    elif dtype == pl.String and lax and zone is not None:
        return _zoned(node, expr, codec)
    elif dtype == pl.String and lax:
        text = expr.str.replace("T", " ", literal=True)
        micros = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
        if to.time_unit == "ns":
            return _kept(
                node, codec, _with_nanoseconds(micros, text), micros, expr.str.contains(MOMENT % _digits(node))
            )
        accepted = all_of(expr.str.contains(MOMENT % 6), is_readable(micros, unit))
        rejected = expr.str.contains(NO_DIGIT)
    else:
        return None
    value = (micros if zone is None else micros.dt.convert_time_zone(zone)).cast(to, strict=False)
    exact = _is_exact(value, micros if zone is None else micros.dt.convert_time_zone(zone), pl.Datetime("us", zone))
    return _within(node, codec, Rule(value, all_of(accepted, exact, is_readable(value, to)), rejected))


def _zoned(node: Node, expr: pl.Expr, codec: ColumnCodec) -> Rule | None:
    """Return the rule for text with an offset, in a column of datetimes with a time zone."""
    to = codec.dtype
    assert isinstance(to, pl.Datetime)
    assert to.time_zone is not None
    text = expr.str.replace("T", " ", literal=True).str.replace("Z", "+00:00", literal=True)
    micros = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", time_unit="us", time_zone="UTC", strict=False)
    micros = micros.dt.convert_time_zone(to.time_zone)
    if to.time_unit == "ns":
        value = _with_nanoseconds(micros, text).dt.replace_time_zone("UTC").dt.convert_time_zone(to.time_zone)
        return _kept(node, codec, value, micros, expr.str.contains(ZONED % _digits(node)))
    value = micros.cast(to, strict=False)
    exact = _is_exact(value, micros, pl.Datetime("us", to.time_zone))
    accepted = all_of(expr.str.contains(ZONED % 6), exact, is_readable(value, to))
    return _within(node, codec, Rule(value, accepted, expr.str.contains(NO_DIGIT)))


def _time(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    known = has_only(node, "microseconds_precision", "tz_constraint", *BOUNDS)
    if not (known and codec.dtype == pl.Time and node.get("tz_constraint") in {None, "naive"}):
        return None
    if dtype == pl.Time:
        value, accepted = expr, TRUE
    elif dtype == pl.String and not context.is_strict(node):
        value, accepted = expr.str.to_time("%H:%M:%S%.f", strict=False), expr.str.contains(CLOCK % _digits(node))
    else:
        return None
    micros = (value.to_physical() // NANOSECONDS * NANOSECONDS).cast(pl.Time)
    return _kept(node, codec, value, micros, accepted)


def _timedelta(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    to = codec.dtype
    if not (has_only(node, "microseconds_precision", *BOUNDS) and isinstance(to, pl.Duration)):
        return None
    if dtype == pl.String and not context.is_strict(node):
        return _span(node, expr, codec)
    if not isinstance(dtype, pl.Duration):
        return None
    micros = expr.cast(pl.Duration("us"), strict=False)
    if dtype.time_unit == to.time_unit == "ns":
        return _kept(node, codec, expr, micros, TRUE)
    value = micros.cast(to, strict=False)
    is_same = micros.cast(dtype, strict=False) == expr
    accepted = all_of(is_readable(expr, dtype), is_same, _is_exact(value, micros, pl.Duration("us")))
    return _within(node, codec, Rule(value, accepted))


def _span(node: Node, expr: pl.Expr, codec: ColumnCodec) -> Rule | None:
    """Return the rule for text in a column of durations."""
    assert isinstance(codec.dtype, pl.Duration)
    unit = codec.dtype.time_unit
    places = 6 if node.keys() & {*BOUNDS} else min(_digits(node), UNIT_DIGITS[unit])  # pydantic rounds further digits
    value = duration_ticks(expr, unit).cast(pl.Int64, strict=False).cast(codec.dtype)
    accepted = all_of(expr.str.contains(SPAN % places), ~expr.str.contains("[PT]$"), value.is_not_null())
    return _within(
        node, codec, Rule(value, all_of(accepted, is_readable(value, pl.Duration(unit)) if unit == "ms" else None))
    )


def _uuid(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    if not (has_only(node, "version") and dtype == codec.dtype == pl.String) or context.is_strict(node):
        return None
    version = node.get("version")
    pattern = UUID % (("[0-9a-f]", "[0-9a-f]") if version is None else (version, "[89ab]"))
    value = expr.str.to_lowercase() if context.is_wide else expr
    return Rule(value, value.str.contains(pattern), expr.str.len_bytes() < 32)


def _enum(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    if not has_only(node, "cls", "members", "sub_type", "missing") or context.is_strict(node):
        return None
    rule = _one_of([member.value for member in node["members"]], expr, dtype, codec)
    return rule and Rule(rule.value, rule.accepted, rule.rejected if node.get("missing") is None else FALSE)


def _literal(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    if not has_only(node, "expected") or any(isinstance(value, Enum) for value in node["expected"]):
        return None
    return _one_of(node["expected"], expr, dtype, codec)


def _one_of(values: list[Any], expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    kinds = {type(value) for value in values}
    if kinds == {str} and _is_text(dtype) and _is_text(codec.dtype):
        accepted = expr.cast(pl.String).is_in(values)
        return _cast(expr.cast(pl.String), codec, accepted, ~accepted)
    is_whole = dtype.is_integer() and codec.dtype.is_integer()
    if kinds == {int} and is_whole and all(-(2**63) <= value < 2**63 for value in values):
        return _cast(expr, codec, expr.cast(pl.Int64, strict=False).is_in(values))
    if kinds == {bool} and dtype == codec.dtype == pl.Boolean:
        return _cast(expr, codec, expr.is_in(values))
    return None


LEAF_RULES: dict[str, Callable[[Node, Context, pl.Expr, Dtype, ColumnCodec], Rule | None]] = {
    "bool": _bool,
    "bytes": _bytes,
    "date": _date,
    "datetime": _datetime,
    "decimal": _decimal,
    "enum": _enum,
    "float": _float,
    "int": _int,
    "literal": _literal,
    "str": _str,
    "time": _time,
    "timedelta": _timedelta,
    "uuid": _uuid,
}


# -- helpers --------------------------------------------------------------------------------------------


def _digits(node: Node) -> int:
    """Return how many digits of a second's fraction pydantic takes. The node may forbid to truncate to microseconds."""
    return 6 if node.get("microseconds_precision") == "error" else 9


def _kept(node: Node, codec: ColumnCodec, value: pl.Expr, micros: pl.Expr, accepted: pl.Expr) -> Rule | None:
    """Return the rule for values that keep their nanoseconds. Bounds apply to *micros*, which is what pydantic sees."""
    seen = micros.cast(codec.dtype, strict=False)
    within = _within(node, codec, Rule(seen, all_of(accepted, value.is_not_null())))
    if within is None or not node.keys() & {*BOUNDS}:
        return within and Rule(value, within.accepted)
    is_near = (value.to_physical() - seen.to_physical()).abs() < NANOSECONDS  # and did not overflow
    return Rule(value, within.accepted & is_near)


def _with_nanoseconds(micros: pl.Expr, text: pl.Expr) -> pl.Expr:
    """Return *micros* with the nanosecond digits of *text*, or null where Datetime("ns") cannot hold the result."""
    rest = text.str.extract(r"\.\d{6}(\d{1,3})").str.pad_end(3, "0").cast(pl.Int128).fill_null(0)
    ticks = micros.to_physical().cast(pl.Int128) * NANOSECONDS + rest
    return ticks.cast(pl.Int64, strict=False).cast(pl.Datetime("ns"))


def _is_exact(value: pl.Expr, micros: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return where *value*, in the unit of the column, equals *micros*."""
    return (value.cast(dtype, strict=False) == micros).fill_null(value=False)


def _is_text(dtype: Dtype) -> bool:
    return isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def _cast(value: pl.Expr, codec: ColumnCodec, accepted: pl.Expr | None, rejected: pl.Expr = FALSE) -> Rule:
    """Return a rule that casts *value* to the dtype of *codec*, and does not accept values that do not fit."""
    cast = value.cast(codec.dtype, strict=False)
    may_fail = not isinstance(codec.dtype, pl.String | pl.Int64 | pl.Boolean)
    return Rule(cast, all_of(accepted, cast.is_not_null() if may_fail else None), rejected)


def _within(node: Node, codec: ColumnCodec, rule: Rule) -> Rule | None:
    """Limit *rule* to values within the bounds of *node*. Return None if the codec cannot store a bound."""
    try:
        bounds = {key: _bound(node[key], codec) for key in BOUNDS if node.get(key) is not None}
    except EncodeError:
        return None
    compare: dict[str, Callable[[Any], pl.Expr]] = {
        "ge": rule.value.__ge__,
        "gt": rule.value.__gt__,
        "le": rule.value.__le__,
        "lt": rule.value.__lt__,
    }
    if not bounds:
        return rule
    within = all_of(*(compare[key](bound) for key, bound in bounds.items()))
    return Rule(rule.value, all_of(rule.accepted, within), any_of(rule.rejected, all_of(rule.accepted, ~within)))


def _bound(value: Any, codec: ColumnCodec) -> pl.Expr:
    if isinstance(value, bool) or (isinstance(value, int) and codec.dtype.is_float() and abs(value) > EXACT):
        raise EncodeError(f"{value} is not a bound of {codec.dtype}")
    if codec.dtype.is_decimal() and isinstance(value, int):
        value = Decimal(value)
    if not isinstance(value, int | float | Decimal | date | time | timedelta) or value != value:  # NaN
        raise EncodeError(f"{value} is not a bound of {codec.dtype}")
    return pl.lit(codec.encode(value), dtype=codec.dtype)


_FLOAT = LeafCodec(pl.Float64(), float)
