"""Rules of nodes that contain others: nullable nodes, defaults, lists, sets, tuples, dicts and nested models.

Every rule that this module returns handles nulls as well: ``accepted`` is never null, and is False where a value is
undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import polars as pl
from pydantic import BaseModel

from greendata.schema.codecs import Column, ColumnCodec, Dtype, ListCodec, PairsCodec, StructCodec
from greendata.schema.column_names import field
from greendata.validation.rules import (
    FALSE,
    LEAF_RULES,
    TRUE,
    Context,
    Node,
    Rule,
    all_of,
    any_of,
    has_only,
    never_null,
)

__all__ = ("is_plain", "resolved", "rule_of", "rule_of_field")

SORTED_ALIKE = (pl.Int64, pl.String, pl.Date, pl.Boolean)  # dtypes that Python and Polars sort in the same order


def rule_of(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    """Return the rule of *node* for the values *expr* of *dtype*, or None if only pydantic can validate them."""
    node = resolved(node, context)
    kind = node["type"]
    if kind == "default" and node.get("on_error", "raise") == "raise":
        return rule_of(node["schema"], context, expr, dtype, codec)
    if kind == "nullable" and has_only(node, "schema"):
        if dtype == pl.Null:
            return Rule(pl.lit(None, dtype=codec.dtype), TRUE)
        rule = rule_of(node["schema"], context, expr, dtype, codec)
        return rule and Rule(rule.value, expr.is_null() | rule.accepted, all_of(expr.is_not_null(), rule.rejected))
    find = LEAF_RULES.get(kind) or CONTAINER_RULES.get(kind)
    rule = None if find is None or dtype == pl.Null else find(node, context, expr, dtype, codec)
    if rule is None:
        return None
    rejected = any_of(expr.is_null(), rule.rejected).fill_null(value=False) if context.is_wide else FALSE
    return Rule(rule.value, never_null(expr, rule), rejected)


def rule_of_field(
    fields: Node, context: Context, column: Column, expr: Callable[[str], pl.Expr], dtypes: Mapping[str, Dtype]
) -> Rule | None:
    """Return the rule of a field of a model, or None if only pydantic can validate it.

    Args:
        fields: the node of the model's fields.
        column: the column of the field.
        expr: returns the values of a column by its name.
        dtypes: the dtypes of the columns that the frame has.
    """
    source = column.source(dtypes)
    if source is not None:
        return rule_of(fields["fields"][column.field]["schema"], context, expr(source), dtypes[source], column.codec)
    if column.missing != "fixed":
        return None
    return Rule(column.constant(), TRUE)


def resolved(node: Node, context: Context) -> Node:
    """Return *node*, or the node that it refers to."""
    while node["type"] == "definition-ref":
        node = context.definitions[node["schema_ref"]]
    return node


def is_plain(node: Node) -> bool:
    """Return True for a model that takes its fields from a dict, without its own ``__init__`` or post-init code."""
    if node["type"] != "model" or node["schema"]["type"] != "model-fields":
        return False
    model: type[BaseModel] = node["cls"]
    own_code = node.get("post_init") and model.model_post_init.__name__ != "init_private_attributes"
    typed_extras = node["schema"].keys() & {"extras_schema", "extras_keys_schema"}
    return not (own_code or typed_extras or node.get("custom_init") or node.get("root_model"))


# -- containers: one function per type of node, each with the arguments (node, context, expr, dtype, codec) --


def _list(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    if not (has_only(node, "items_schema", "min_length", "max_length", "fail_fast") and "items_schema" in node):
        return None
    return _items(node, node["items_schema"], context, expr, dtype, codec)


def _tuple(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    if not has_only(node, "items_schema", "variadic_item_index", "min_length", "max_length", "fail_fast"):
        return None
    items = node["items_schema"]
    if context.is_strict(node) or any(item != items[0] for item in items):
        return None
    if "variadic_item_index" not in node and not (isinstance(dtype, pl.Array) and dtype.size == len(items)):
        return None
    return _items(node, items[0], context, expr, dtype, codec) if items else None


def _items(node: Node, item: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    if not (isinstance(dtype, pl.List | pl.Array) and isinstance(codec, ListCodec)):
        return None
    fixed = codec.dtype.size if isinstance(codec.dtype, pl.Array) else None
    if fixed is not None and not (isinstance(dtype, pl.Array) and dtype.size == fixed):
        return None
    values = expr.arr.to_list() if isinstance(dtype, pl.Array) else expr
    rule = rule_of(item, context, pl.element(), dtype.inner, codec.items)
    if rule is None:
        return None
    value = values.list.eval(rule.value)
    accepted = all_of(values.list.eval(rule.accepted).list.all(), *_lengths(node, values.list.len()))
    return Rule(value if fixed is None else value.list.to_array(fixed), accepted)


def _set(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    known = has_only(node, "items_schema", "min_length", "max_length", "fail_fast") and "items_schema" in node
    if not (known and isinstance(codec, ListCodec) and isinstance(dtype, pl.List)) or context.is_strict(node):
        return None
    if not isinstance(codec.items.dtype, SORTED_ALIKE):
        return None
    rule = rule_of(node["items_schema"], context, pl.element(), dtype.inner, codec.items)
    if rule is None:
        return None
    value = expr.list.eval(rule.value.unique().sort())
    return Rule(value, all_of(expr.list.eval(rule.accepted).list.all(), *_lengths(node, value.list.len())))


def _dict(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    known = has_only(node, "keys_schema", "values_schema", "min_length", "max_length", "fail_fast")
    if not (
        known and isinstance(codec, PairsCodec) and isinstance(codec.dtype, pl.List) and isinstance(dtype, pl.List)
    ):
        return None
    if codec.decoder(dtype) is None:
        return None
    kinds = {field.name: field.dtype for field in dtype.inner.fields}  # type: ignore[union-attr]
    pair = pl.element().struct
    key = rule_of(node["keys_schema"], context, pair.field("key"), kinds["key"], codec.keys)
    value = rule_of(node["values_schema"], context, pair.field("value"), kinds["value"], codec.values)
    if key is None or value is None:
        return None
    accepted = expr.list.eval(pl.element().is_not_null() & key.accepted & value.accepted).list.all()
    distinct = expr.list.eval(key.value.n_unique()).list.first() == expr.list.len()
    pairs = expr.list.eval(pl.struct(key.value.alias("key"), value.value.alias("value")))
    return Rule(pairs, all_of(accepted, distinct | (expr.list.len() == 0), *_lengths(node, expr.list.len())))


def _model(node: Node, context: Context, expr: pl.Expr, dtype: Dtype, codec: ColumnCodec) -> Rule | None:
    if not (is_plain(node) and isinstance(codec, StructCodec) and isinstance(dtype, pl.Struct)):
        return None
    inside = Context(context.definitions, node.get("config", {}), context.strict, context.is_wide)
    dtypes = {field.name: field.dtype for field in dtype.fields}
    used = {column.source(dtypes) for column in codec.columns}
    if dtypes.keys() - used and node["cls"].model_config.get("extra") == "forbid":
        return None
    values, conditions = [], []
    for column in codec.columns:
        rule = rule_of_field(node["schema"], inside, column, partial(field, expr, dtype), dtypes)
        if rule is None:
            return None
        values.append(rule.value.alias(column.name))
        conditions.append(rule.accepted)
    return Rule(pl.when(expr.is_not_null()).then(pl.struct(values)), all_of(*conditions))


CONTAINER_RULES: dict[str, Callable[[Node, Context, pl.Expr, Dtype, ColumnCodec], Rule | None]] = {
    "dict": _dict,
    "frozenset": _set,
    "list": _list,
    "model": _model,
    "set": _set,
    "tuple": _tuple,
}


def _lengths(node: Node, length: pl.Expr) -> tuple[pl.Expr | None, pl.Expr | None]:
    low: Any = node.get("min_length")
    high: Any = node.get("max_length")
    return (None if low is None else length >= low, None if high is None else length <= high)
