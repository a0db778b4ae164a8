"""Every type of node in pydantic's core schemas, sorted by who judges its values. A new pydantic may have a new one.

The remedy: a node whose values Polars can judge gets a rule, in `greendata.validation.rules` or
`greendata.validation.nested`. Any other is added to `TO_PYDANTIC`, once it is clear that `parts_of` finds what is
inside it.
"""

from __future__ import annotations

from typing import Any, get_args

import pydantic
import pytest
from pydantic import BaseModel, Field, model_validator
from pydantic_core.core_schema import CoreSchemaType

from greendata.internals.pydantic import core_schema_of, parts_of, type_of, validates
from greendata.validation.column_validation import runs_code
from greendata.validation.nested import CONTAINER_RULES
from greendata.validation.rules import LEAF_RULES

# Nodes that the rules look through.
AROUND = {"default", "definition-ref", "definitions", "model-fields", "nullable"}
# Nodes without a rule of Polars: pydantic judges their values, one by one.
TO_PYDANTIC = {
    *("any", "arguments", "arguments-v3", "call", "callable", "chain", "complex", "counter", "custom-error"),
    *("dataclass", "dataclass-args", "deque", "ellipsis", "fraction", "frozendict", "function-after"),
    *("function-before", "function-plain", "function-wrap", "generator", "invalid", "is-instance", "is-subclass"),
    *("json", "json-or-python", "lax-or-strict", "missing-sentinel", "multi-host-url", "named-tuple", "none"),
    *("ordered-dict", "tagged-union", "typed-dict", "union", "url"),
}


class Inner(BaseModel):
    amount: int = Field(ge=0)


class Checked(BaseModel):
    amount: int

    @model_validator(mode="after")
    def is_small(self) -> Checked:
        return self


class Outer(BaseModel):
    name: str = "type"
    inner: Inner | None = None
    listed: list[Inner] = Field(default_factory=list)


def unsorted() -> set[str]:
    return set(get_args(CoreSchemaType)) - LEAF_RULES.keys() - CONTAINER_RULES.keys() - AROUND - TO_PYDANTIC


def test_every_type_of_node_is_classified() -> None:
    assert unsorted() == set(), f"new in pydantic {pydantic.VERSION}; sort it as this module's docstring says"


def test_no_type_of_node_has_two_classes() -> None:
    ruled = LEAF_RULES.keys() | CONTAINER_RULES.keys()
    assert not ruled & AROUND
    assert not (ruled | AROUND) & TO_PYDANTIC


def types_in(part: Any) -> set[str]:
    found = {kind} if (kind := type_of(part)) else set()
    return found.union(*map(types_in, parts_of(part)))


def test_the_nodes_inside_a_node_are_found_and_its_values_are_not() -> None:
    types = types_in(core_schema_of(Outer))
    assert {"model", "model-fields", "default", "str", "nullable", "list", "int"} <= types
    schema = {"type": "default", "schema": {"type": "any"}, "default": {"type": "function-plain"}}
    assert types_in(schema) == {"default", "any"}


@pytest.mark.parametrize("model", [Inner, Outer, Checked])
def test_validates_returns_the_models_own_validator(model: type[BaseModel]) -> None:
    assert validates(model)({"amount": "3"}) == model.model_validate({"amount": "3"})
    assert runs_code(model) == (model is Checked)
