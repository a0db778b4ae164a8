"""What greendata knows of pydantic's insides: private attributes of models, and how core schemas are put together.

A core schema is a tree of dicts, the nodes, each with a ``type``. `pydantic_core.core_schema` documents the nodes, but
not that a model's is kept, nor which of a node's keys hold further nodes. What the rules read off single nodes is in
`greendata.validation.rules` and `greendata.validation.nested`: there a node with a key that they do not know has no
rule, and pydantic judges its values. A test sorts all types of nodes that the installed version has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic_core import SchemaValidator

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic._internal._decorators import Decorator, FieldValidatorDecoratorInfo

__all__ = (
    "core_schema_of",
    "field_validators_of",
    "holds_parts",
    "parts_of",
    "type_of",
    "validates",
    "validator_of",
)

# Keys of nodes that hold no further nodes: what is in there only looks like one, a default value for example.
_OPAQUE = frozenset({"config", "default", "expected", "members", "metadata", "serialization"})


def core_schema_of(model: type[BaseModel]) -> Any:
    """Return the core schema that *model* validates by. The model must be complete, see `BaseModel.model_rebuild`.

    Example:
        >>> from pydantic import BaseModel
        >>> class User(BaseModel):
        ...     name: str
        >>> core_schema_of(User)["type"]
        'model'
    """
    return model.__pydantic_core_schema__


def validates(model: type[BaseModel]) -> Callable[..., Any]:
    """Return what makes an instance of *model* of a value, as ``model_validate`` does after a few calls more.

    Example:
        >>> from pydantic import BaseModel
        >>> class User(BaseModel):
        ...     name: str
        >>> validates(User)({"name": "Ann"})
        User(name='Ann')
    """
    return model.__pydantic_validator__.validate_python


def field_validators_of(model: type[BaseModel]) -> Mapping[str, Decorator[FieldValidatorDecoratorInfo]]:
    """Return the field validators of *model* by the names of their functions: each has ``func`` and ``info``.

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
    """Return what validates by a core schema, and by nothing else.

    pydantic 2.12 and later have a model's own validator stand for it, whatever the schema says of it.

    Example:
        >>> validator_of({"type": "int"}).validate_python("3")
        3
    """
    try:
        return SchemaValidator(core, config, _use_prebuilt=False)
    except TypeError:  # an older one, which has no such thing
        return SchemaValidator(core, config)


def type_of(part: Any) -> str | None:
    """Return the type of a node, or None for a part of a core schema that is none: a list, or a mapping of fields.

    Example:
        >>> type_of({"type": "int"}), type_of({"type": {"type": "int"}}), type_of([])
        ('int', None, None)
    """
    found = part.get("type") if isinstance(part, dict) else None
    return found if isinstance(found, str) else None


def holds_parts(part: Mapping[str, Any], key: str) -> bool:
    """True if what *part* of a core schema has under *key* may be a further part.

    Example:
        >>> holds_parts({"type": "default", "schema": {}, "default": {}}, "default")
        False
    """
    return key not in _OPAQUE or type_of(part) is None


def parts_of(part: Any) -> Iterator[Any]:
    """Yield the parts of a core schema that are right inside *part*.

    Example:
        >>> list(parts_of({"type": "nullable", "schema": {"type": "int"}, "metadata": {}}))
        ['nullable', {'type': 'int'}]
    """
    if isinstance(part, list | tuple):
        yield from part
    elif isinstance(part, dict):
        yield from (inner for key, inner in part.items() if holds_parts(part, key))
