"""The internals of pydantic that greendata uses: private attributes of models, and the structure of core schemas.

A core schema is a tree of dicts, the nodes, each with a ``type``. `pydantic_core.core_schema` documents the nodes. It
does not document that a model keeps its schema, nor which keys of a node contain further nodes.

The rules for single nodes are in `greendata.validation.rules` and `greendata.validation.nested`. A node with an unknown
key has no rule there, and pydantic validates its values. A test classifies all node types of the installed version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic_core import SchemaValidator

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic._internal._decorators import Decorator, FieldValidatorDecoratorInfo
    from pydantic.fields import FieldInfo

__all__ = (
    "core_schema_of",
    "dataclass_config_of",
    "dataclass_fields_of",
    "field_validators_of",
    "holds_parts",
    "may_take_text",
    "parts_of",
    "type_of",
    "validates",
    "validator_of",
)

# Keys whose values are not nodes even if they look like one, for example a default value.
_OPAQUE = frozenset({"config", "default", "expected", "members", "metadata", "serialization"})
# Nodes that accept no string in Python mode, or only a number as text, which is the same number in JSON.
_WITHOUT_TEXT = frozenset(
    {
        *("arguments", "arguments-v3", "call", "counter", "dataclass", "dataclass-args", "deque", "dict", "float"),
        *("frozendict", "frozenset", "generator", "int", "list", "model", "model-fields", "named-tuple", "none"),
        *("ordered-dict", "set", "tuple", "typed-dict"),
    }
)


def core_schema_of(model: type[BaseModel]) -> Any:
    """Return the core schema of *model*. The model must be complete, see `BaseModel.model_rebuild`.

    Example:
        >>> from pydantic import BaseModel
        >>> class User(BaseModel):
        ...     name: str
        >>> core_schema_of(User)["type"]
        'model'
    """
    return model.__pydantic_core_schema__


def validates(model: type[BaseModel]) -> Callable[..., Any]:
    """Return the function that validates a value as *model*: ``model_validate`` with fewer calls.

    Example:
        >>> from pydantic import BaseModel
        >>> class User(BaseModel):
        ...     name: str
        >>> validates(User)({"name": "Ann"})
        User(name='Ann')
    """
    return model.__pydantic_validator__.validate_python


def dataclass_fields_of(kind: type) -> Mapping[str, FieldInfo]:
    """Return the fields of a dataclass of pydantic, or of the standard library.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class User:
        ...     name: str = "?"
        >>> dataclass_fields_of(User)["name"].default
        '?'
    """
    known: Any = kind if is_pydantic_dataclass(kind) else pydantic_dataclass(kind)
    fields: Mapping[str, FieldInfo] = known.__pydantic_fields__
    return fields


def dataclass_config_of(kind: type) -> Mapping[str, Any]:
    """Return the configuration of a dataclass or TypedDict.

    Example:
        >>> from pydantic.dataclasses import dataclass
        >>> dataclass_config_of(dataclass(type("Empty", (), {}), config={"frozen": True}))
        {'frozen': True}
    """
    config: Mapping[str, Any] = getattr(kind, "__pydantic_config__", {})
    return config


def field_validators_of(model: type[BaseModel]) -> Mapping[str, Decorator[FieldValidatorDecoratorInfo]]:
    """Return the field validators of *model* by function name; each has ``func`` and ``info``.

    Example:
        >>> from pydantic import BaseModel, field_validator
        >>> class User(BaseModel):
        ...     name: str
        ...     @field_validator("name")
        ...     def short(cls, name: str) -> str:
        ...         return name[:9]
        >>> field_validators_of(User)["short"].info.fields
        ('name',)
    """
    return model.__pydantic_decorators__.field_validators


def validator_of(core: Any, config: Any = None) -> SchemaValidator:
    """Return a validator for exactly the core schema *core*.

    pydantic 2.12 and later would use the prebuilt validator of a model in its place, even for a changed schema.

    Example:
        >>> validator_of({"type": "int"}).validate_python("3")
        3
    """
    try:
        return SchemaValidator(core, config, _use_prebuilt=False)
    except TypeError:  # an older pydantic without prebuilt validators
        return SchemaValidator(core, config)


def type_of(part: Any) -> str | None:
    """Return the type of a node, or None for a part of a core schema that is not a node: a list or a dict of fields.

    Example:
        >>> type_of({"type": "int"}), type_of({"type": {"type": "int"}}), type_of([])
        ('int', None, None)
    """
    found = part.get("type") if isinstance(part, dict) else None
    return found if isinstance(found, str) else None


def holds_parts(part: Mapping[str, Any], key: str) -> bool:
    """Return True if the value of *key* in *part* of a core schema may be a further part.

    Example:
        >>> holds_parts({"type": "default", "schema": {}, "default": {}}, "default")
        False
    """
    return key not in _OPAQUE or type_of(part) is None


def parts_of(part: Any) -> Iterator[Any]:
    """Yield the parts of a core schema that *part* directly contains.

    Example:
        >>> list(parts_of({"type": "nullable", "schema": {"type": "int"}, "metadata": {}}))
        ['nullable', {'type': 'int'}]
    """
    if isinstance(part, list | tuple):
        yield from part
    elif isinstance(part, dict):
        yield from (inner for key, inner in part.items() if holds_parts(part, key))


def may_take_text(core: Any) -> bool:
    """Return False if no value of *core* is a string, and no other string than that of a number becomes a value.

    Example:
        >>> from pydantic import TypeAdapter
        >>> [may_take_text(TypeAdapter(kind).core_schema) for kind in (int | str, int | None, dict[str, int])]
        [True, False, False]
    """
    refs = {node["ref"]: node for node in core.get("definitions", ())}
    pending, seen = [core], set()
    while pending:
        node = pending.pop()
        kind = node["type"]
        if kind == "definition-ref":
            if node["schema_ref"] not in seen:
                seen.add(node["schema_ref"])
                pending.append(refs[node["schema_ref"]])
        elif kind == "union":
            pending += [choice[0] if isinstance(choice, tuple) else choice for choice in node["choices"]]
        elif kind == "tagged-union":
            pending += [choice for choice in node["choices"].values() if isinstance(choice, dict)]
        elif kind == "model" and node.get("root_model"):
            pending.append(node["schema"])
        elif kind in _WITHOUT_TEXT:
            continue
        elif (inner := node.get("schema") or node.get("lax_schema") or node.get("python_schema")) and kind != "json":
            pending.append(inner)  # around another node: a default, a nullable one, a function
        elif kind == "chain":
            pending.append(node["steps"][0])
        else:
            return True
    return False
