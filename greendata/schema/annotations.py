"""The annotations of fields: the types behind aliases, the members of unions, and types that hold secrets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, ForwardRef, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, RootModel, Secret, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

__all__ = (
    "SECRETS",
    "UNIONS",
    "alias_of",
    "holds_secret",
    "is_optional",
    "is_typed_dict",
    "plain_type",
    "tags_of",
    "union_members",
)

SECRETS = (Secret, SecretBytes, SecretStr)
UNIONS = (Union, UnionType)


def alias_of(annotation: Any) -> Any:
    """Return the type behind a ``NewType`` or a ``type`` statement, or None for anything else.

    Example:
        >>> from typing import NewType
        >>> alias_of(NewType("UserId", int)), alias_of(int)
        (<class 'int'>, None)
    """
    supertype = getattr(annotation, "__supertype__", None)
    return supertype if supertype is not None else getattr(annotation, "__value__", None)


def plain_type(annotation: Any) -> Any:
    """Return *annotation* without aliases, and without None in a union.

    Example:
        >>> plain_type(int | None)
        <class 'int'>
    """
    if (plain := alias_of(annotation)) is not None:
        return plain_type(plain)
    members = union_members(annotation)
    return plain_type(members[0]) if len(members) == 1 else annotation


def union_members(annotation: Any) -> list[Any]:
    """Return the members of a union except None, or an empty list for anything else.

    Example:
        >>> union_members(int | str | None), union_members(int)
        ([<class 'int'>, <class 'str'>], [])
    """
    if get_origin(annotation) is Annotated:
        return union_members(get_args(annotation)[0])
    if get_origin(annotation) not in UNIONS:
        return []
    return [member for member in get_args(annotation) if member is not NoneType]


def tags_of(metadata: Any) -> tuple[Any, ...]:
    """Return the metadata that one part of an ``Annotated`` stands for: that of a `Field`, or the part itself.

    Example:
        >>> from pydantic import Field
        >>> tags_of(Field(gt=1)), tags_of("text")
        ((Gt(gt=1),), ('text',))
    """
    if not isinstance(metadata, FieldInfo):
        return (metadata,)
    if metadata.discriminator is None:
        return tuple(metadata.metadata)
    return (*metadata.metadata, FieldInfo(discriminator=metadata.discriminator))


def is_optional(annotation: Any) -> bool:
    """Return True if None is a valid value.

    Example:
        >>> is_optional(int | None), is_optional(Any), is_optional(int)
        (True, True, False)
    """
    if (plain := alias_of(annotation)) is not None:
        return is_optional(plain)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return is_optional(args[0])
    if origin is Literal:
        return None in args
    if isinstance(annotation, TypeVar):
        return annotation.__bound__ is None or is_optional(annotation.__bound__)
    if isinstance(annotation, type) and issubclass(annotation, RootModel):
        return is_optional(annotation.model_fields["root"].annotation)
    return annotation in (NoneType, Any, object) or (origin in UNIONS and any(map(is_optional, args)))


def is_typed_dict(kind: Any) -> bool:
    """Return True for a ``TypedDict``, of `typing` or of ``typing_extensions``.

    Example:
        >>> from typing import TypedDict
        >>> is_typed_dict(TypedDict("Point", {"x": int})), is_typed_dict(dict)
        (True, False)
    """
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__total__")


def holds_secret(annotation: Any, *, or_hidden: bool = False) -> bool:
    """Return True if values of the type are, or contain, what pydantic hides: `SecretStr` and the like.

    Args:
        or_hidden: True if a model that sets ``hide_input_in_errors`` counts as well.

    Example:
        >>> holds_secret(dict[str, SecretStr]), holds_secret(str)
        (True, False)
    """
    seen: list[Any] = []
    pending = [annotation]
    while pending:
        part = pending.pop()
        if any(part is known for known in seen):
            continue
        seen.append(part)
        if isinstance(part, str | ForwardRef) and "Secret" in str(part):  # an annotation that is not evaluated
            return True
        kind = get_origin(part) or part
        if isinstance(kind, type) and (issubclass(kind, SECRETS) or (or_hidden and _hides_input(kind))):
            return True
        pending += [alias_of(part), *get_args(part), *_parts(kind)] if part is not None else []
    return False


def _hides_input(kind: type) -> bool:
    return issubclass(kind, BaseModel) and bool(kind.model_config.get("hide_input_in_errors"))


def _parts(kind: Any) -> Iterator[Any]:
    """Yield the types of the fields of a class, as far as they are known without evaluating text."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from (info.annotation for info in kind.model_fields.values())
    elif is_dataclass(kind):
        yield from (field.type for field in fields(kind))
    elif is_typed_dict(kind) or (isinstance(kind, type) and issubclass(kind, tuple)):
        yield from getattr(kind, "__annotations__", {}).values()
