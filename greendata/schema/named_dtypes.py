"""Values stored as other values: as the dtype that an annotation names, or as text if nothing better exists.

Each value is read back, as pydantic will read it, before it goes into a column. A value that does not come back
unchanged does not fit.

Text has to say whether it is a string or the JSON of another value, because a type such as ``int | str`` admits both
``1`` and ``"1"``. Text of another program is left to pydantic, as the values of every column are, so the JSON is the
one that is marked. JSON text may begin with white space, so programs that parse it can read it with its mark:

==============================  ================================  ==============================================
the type                        a value                           its text
==============================  ================================  ==============================================
its JSON is a string (UUID)     ``UUID(int=1)``                   ``00000000-0000-0000-0000-000000000001``
it has no strings (``A | B``)   ``A(x=1)``                        ``{"x":1}``
it may have (``int | str``)     ``"1"`` and ``"one"``             ``1`` and ``one``
it may have (``int | str``)     ``1``                             a tab and ``1``
JSON is not enough              ``date(2024, 1, 2)``              a tab and ``{"date":"2024-01-02"}``
(``str | date``)
==============================  ================================  ==============================================
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from functools import partial
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    PlainValidator,
    PydanticSchemaGenerationError,
    PydanticUndefinedAnnotation,
    PydanticUserError,
    SecretBytes,
    TypeAdapter,
    ValidationError,
    WrapValidator,
)
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import from_json, to_json, to_jsonable_python

from greendata.internals.pydantic import may_take_text
from greendata.schema.annotations import SECRETS, alias_of, union_members
from greendata.schema.codecs import ColumnCodec, Convert, Dtype, EncodeError, leaf_codec

__all__ = ("MARK", "MARKED_JSON", "NamedDtypeCodec", "is_json", "json_type", "named_codec")

MARK = "\t"  # begins the text of a value that is not a string, where the type admits strings
MARKED_JSON = b'"\\t'  # begins such a text in JSON
_WORDS = ("true", "false", "null")  # in JSON a number may be true, but as text these are not values of such a type
_TEXTS = (pl.String, pl.Categorical, pl.Enum)
_FUNCTIONS = (AfterValidator, BeforeValidator, PlainValidator, WrapValidator)
_WHOLE: dict[str, Any] = {"round_trip": True, "warnings": False}
_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")


@dataclass(frozen=True, slots=True)
class NamedDtypeCodec(ColumnCodec):
    """Values that are stored as other values.

    In a text column, a value whose JSON is a string is stored as that string, and any other value as its JSON, which
    is marked where it could be taken for a string. Bytes are stored in base64. Secrets are stored in plain text.

    Attributes:
        cell: the codec of the stored values.
        adapter: converts a stored value with pydantic.
        kind: "text" if the JSON of the values is a string, "bytes", "json" if pydantic takes no string for a value,
            "marked" if it may, or "same" if the column is not text.
        members: for a union, converts a JSON object of the name of a member and a value of it, by the first characters
            of its text.
        null: what is stored for None. pydantic's `Json` does not admit None, but reads it from the text "null".
        is_default: True if no annotation asks for text: nothing better exists for the type.
    """

    cell: ColumnCodec
    adapter: TypeAdapter[Any]
    kind: Literal["text", "bytes", "json", "marked", "same"]
    members: Mapping[str, TypeAdapter[Any]]
    null: str | None = None
    is_default: bool = False

    def encode(self, value: Any) -> Any:
        """See `ColumnCodec.encode`."""
        if value is None:
            return self.null
        reason: Exception | None = None
        for codes in self._codes(value):
            try:
                for code in codes():
                    encoded = self.cell.encode(code)
                    kept = pl.Series([encoded], dtype=self.dtype).item() if self.kind == "same" else encoded
                    if _is_same(self.adapter.validate_python(self._value(kept)), value):
                        return encoded
            except EncodeError as unfit:
                if isinstance(value, SECRETS):  # the text of the error has the secret
                    reason = unfit
                    break
                raise
            except Exception as error:  # noqa: BLE001 - the type of a user may raise anything
                reason = error
        raise EncodeError(f"{type(value).__name__} does not come back from {self.dtype} as it was") from reason

    def decoder(self, dtype: Dtype) -> Convert | None:
        """See `ColumnCodec.decoder`."""
        is_coded = self.kind in {"bytes", "json", "marked"} and isinstance(dtype, _TEXTS)
        return (lambda encoded: None if encoded is None else self._value(encoded)) if is_coded else None

    def _codes(self, value: Any) -> Iterator[Callable[[], Iterable[Any]]]:
        """Yield functions that return possible encodings of *value*, the plainest first. Each function may fail."""
        plain: Any = value.get_secret_value() if isinstance(value, SECRETS) else value
        is_secret = plain is not value
        dump = to_jsonable_python if is_secret else partial(self.adapter.dump_python, mode="json", **_WHOLE)
        as_json = to_json if is_secret else partial(self.adapter.dump_json, **_WHOLE)
        by_alias = to_json if is_secret else partial(self.adapter.dump_json, by_alias=True, **_WHOLE)
        if self.kind == "bytes":
            yield lambda: [b64encode(plain).decode()]
        elif self.kind == "same":
            yield lambda: [plain]
        else:
            yield lambda: [shown] if isinstance(shown := dump(plain), str) else []
            yield lambda: [by_alias(plain).decode()]
            yield lambda: [as_json(plain).decode()]
        if self.kind == "marked":
            yield lambda: [MARK + by_alias(plain).decode()]
            yield lambda: [MARK + as_json(plain).decode()]
        for begin, member in self.members.items():
            yield partial(_as_member, begin, member, plain)

    def _value(self, encoded: Any) -> Any:
        """Return what pydantic validates for a stored value."""
        if self.kind == "bytes":
            try:
                return b64decode(encoded, validate=True)
            except ValueError:
                return _NotBase64(encoded)
        if self.kind == "json":
            return encoded if encoded in _WORDS else self._from_json(encoded)
        return self._from_json(encoded) if self.kind == "marked" and encoded.startswith(MARK) else encoded

    def _from_json(self, text: str) -> Any:
        code = text.removeprefix(MARK)
        begin = next((begin for begin in self.members if code.startswith(begin)), None)
        for adapter in (self.adapter,) if begin is None else (self.members[begin], self.adapter):
            try:
                value = _validated(adapter, code)
            except ValidationError:  # text that only looks like the JSON of such a value
                continue
            return value if adapter is self.adapter else next(iter(value.values()))
        return _parsed(text) if self.kind == "json" else text


def _validated(adapter: TypeAdapter[Any], code: str) -> Any:
    """Return the value of JSON whose fields have their aliases, or their names if pydantic dumps no valid alias."""
    try:
        return adapter.validate_json(code)
    except ValidationError:
        return adapter.validate_json(code, by_name=True)


def _as_member(begin: str, member: TypeAdapter[Any], value: Any) -> list[str]:
    """Return the text of *value* as the value of one member of a union."""
    name: str = json.loads(begin + "0}").popitem()[0]
    return [MARK + member.dump_json({name: value}, **_WHOLE).decode()]


def _parsed(text: str) -> Any:
    """Return the array or object that *text* is the JSON of, so that pydantic names the place in it; else *text*."""
    try:
        value = from_json(text)
    except ValueError:
        return text
    return value if isinstance(value, dict | list) else text


class _NotBase64:
    """Text that is not base64, in a column of bytes. pydantic would accept a plain string as bytes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def named_codec(annotation: Any, metadata: Sequence[Any], dtype: pl.DataType) -> NamedDtypeCodec:
    r"""Return the codec that stores values of a type in columns of *dtype*.

    Args:
        annotation: the type.
        metadata: the metadata of the annotation.

    Raises:
        PydanticUserError: pydantic has no schema for the type.

    Example:
        >>> codec = named_codec(int | str, (), pl.String())
        >>> codec.encode(1), codec.encode("1"), codec.encode("one")
        ('\t1', '1', 'one')
    """
    rest = [tag for tag in metadata if not isinstance(tag, _FUNCTIONS)]
    try:
        adapter = _adapter(annotation, rest)
    except PydanticSchemaGenerationError:
        adapter = _adapter(annotation, metadata)
    members: Mapping[str, TypeAdapter[Any]] = {}
    kind: Literal["text", "bytes", "json", "marked", "same"] = "json"
    if not isinstance(dtype, _TEXTS):
        kind = "same"
    elif annotation in (bytes, SecretBytes):
        kind = "bytes"
    elif any(is_json(tag) for tag in (annotation, *metadata)) or json_type(adapter) == "string":
        kind = "text"
    else:
        kind, members = "marked" if may_take_text(adapter.core_schema) else "json", _members(annotation)
    return NamedDtypeCodec(dtype, leaf_codec(dtype), adapter, kind, members)


def is_json(tag: object) -> bool:
    """Return True for pydantic's `Json`, and for what ``Json[T]`` adds to the metadata of T."""
    return tag is Json or type(tag).__name__ == Json.__name__


def json_type(adapter: TypeAdapter[Any]) -> object:
    """Return the type of the JSON values, None if there are several, or False if pydantic cannot tell."""
    try:
        return adapter.json_schema(mode="serialization").get("type")
    except PydanticInvalidForJsonSchema:
        return False


def _adapter(annotation: Any, metadata: Sequence[Any]) -> TypeAdapter[Any]:
    kind: Any = Annotated[(annotation, *metadata)] if metadata else annotation
    try:
        return TypeAdapter(kind, config=_CONFIG)
    except PydanticSchemaGenerationError:
        raise
    except PydanticUserError:  # a model, whose configuration cannot be replaced
        return TypeAdapter(kind)


def _members(annotation: Any) -> dict[str, TypeAdapter[Any]]:
    """Return the adapters of ``{"name": value}`` for the members of a union; members of one name get none."""
    found: dict[str, TypeAdapter[Any]] = {}
    if (plain := alias_of(annotation)) is not None:
        return _members(plain)
    names = [(getattr(member, "__name__", str(member)), member) for member in union_members(annotation)]
    for name, member in names:
        if sum(name == other for other, _ in names) > 1:
            continue
        one: Any = Annotated[dict[Literal[name], member], Field(min_length=1, max_length=1)]  # type: ignore[valid-type]
        try:
            found[f"{{{json.dumps(name)}:"] = _adapter(one, ())
        except (PydanticUserError, PydanticUndefinedAnnotation):  # the union contains itself, by name
            return {}
    return found


def _is_same(found: Any, value: Any) -> bool:
    """Return True if the values are equal and have the same types, down to the items of containers."""
    if type(found) is not type(value):
        return False
    if isinstance(value, list | tuple):
        return len(found) == len(value) and all(map(_is_same, found, value))
    if isinstance(value, dict):
        return len(found) == len(value) and all(
            _is_same(key, other) and _is_same(found[key], value[other]) for key, other in zip(found, value, strict=True)
        )
    is_equal = bool(found == value or value != value)  # NaN
    return is_equal and _exact_text(found) == _exact_text(value)


def _exact_text(value: Any) -> Any:
    """Return text that differs for 1, 1.0 and True, but ignores the order of sets and the names of time zones."""
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    return value.isoformat() if isinstance(value, datetime | time) else repr(value)
