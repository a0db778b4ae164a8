"""Values stored in a dtype that is not the usual one of their type, as in ``Annotated[dict, polars.String]``.

Each value is read back, as pydantic will read it, before it goes into a column. A value that does not come back
unchanged does not fit.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from functools import partial
from typing import Annotated, Any

import polars as pl
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Json,
    PlainValidator,
    PydanticSchemaGenerationError,
    PydanticUserError,
    Secret,
    SecretBytes,
    SecretStr,
    TypeAdapter,
    ValidationError,
    WrapValidator,
)
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import to_json, to_jsonable_python

from greendata.schema.codecs import ColumnCodec, Convert, Dtype, EncodeError, leaf_codec

__all__ = ("NamedDtypeCodec", "named_codec")

_TEXTS = (pl.String, pl.Categorical, pl.Enum)
_SECRETS = (Secret, SecretBytes, SecretStr)
_FUNCTIONS = (AfterValidator, BeforeValidator, PlainValidator, WrapValidator)
_WHOLE: dict[str, Any] = {"round_trip": True, "warnings": False}
_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")


@dataclass(frozen=True, slots=True)
class NamedDtypeCodec(ColumnCodec):
    """Values that are stored as other values.

    In a text column, a value whose JSON is a string is stored as that string, and any other value as its JSON. Bytes
    are stored in base64. Secrets are stored in plain text.

    Attributes:
        cell: the codec of the stored values.
        adapter: converts a stored value with pydantic.
        kind: "text" if the JSON of the values is a string, "bytes", "json", or "same" if the column is not text.
    """

    cell: ColumnCodec
    adapter: TypeAdapter[Any]
    kind: str

    def encode(self, value: Any) -> Any:
        """See `ColumnCodec.encode`."""
        if value is None:
            return None
        reason: Exception | None = None
        try:
            for code in self._codes(value):
                encoded = self.cell.encode(code)
                kept = pl.Series([encoded], dtype=self.dtype).item() if self.kind == "same" else encoded
                if _is_same(self.adapter.validate_python(self._value(kept)), value):
                    return encoded
        except EncodeError:
            raise
        except Exception as error:  # noqa: BLE001 - the type of a user may raise anything
            reason = error
        raise EncodeError(f"{type(value).__name__} does not come back from {self.dtype} as it was") from reason

    def decoder(self, dtype: Dtype) -> Convert | None:
        """See `ColumnCodec.decoder`."""
        is_coded = self.kind in {"bytes", "json"} and isinstance(dtype, _TEXTS)
        return (lambda encoded: None if encoded is None else self._value(encoded)) if is_coded else None

    def _codes(self, value: Any) -> Iterator[Any]:
        """Yield the possible encodings of *value*, the plainest first."""
        plain: Any = value.get_secret_value() if isinstance(value, _SECRETS) else value
        if self.kind == "bytes":
            yield b64encode(plain).decode()
        elif self.kind == "same":
            yield plain
        else:
            is_secret = plain is not value
            dump = to_jsonable_python if is_secret else partial(self.adapter.dump_python, mode="json", **_WHOLE)
            if isinstance(shown := dump(plain), str):
                yield shown
            yield (to_json(plain) if is_secret else self.adapter.dump_json(plain, **_WHOLE)).decode()

    def _value(self, encoded: Any) -> Any:
        """Return what pydantic validates for a stored value."""
        try:
            if self.kind == "bytes":
                return b64decode(encoded, validate=True)
            return self.adapter.validate_json(encoded) if self.kind == "json" else encoded
        except ValidationError:  # text that is not the JSON of such a value
            return encoded
        except ValueError:
            return _NotBase64(encoded)


class _NotBase64:
    """Text that is not base64, in a column of bytes. pydantic would accept a plain string as bytes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def named_codec(annotation: Any, metadata: Sequence[Any], dtype: pl.DataType) -> NamedDtypeCodec:
    """Return the codec that stores values of a type in columns of *dtype*.

    Args:
        annotation: the type.
        metadata: the metadata of the annotation.

    Raises:
        PydanticUserError: pydantic has no schema for the type.

    Example:
        >>> codec = named_codec(int | str, (), pl.String())
        >>> codec.encode(1), codec.encode("1"), codec.encode("one")
        ('1', '"1"', 'one')
    """
    rest = [tag for tag in metadata if not isinstance(tag, _FUNCTIONS)]
    try:
        adapter = _adapter(annotation, rest)
    except PydanticSchemaGenerationError:
        adapter = _adapter(annotation, metadata)
    if not isinstance(dtype, _TEXTS):
        kind = "same"
    elif annotation in (bytes, SecretBytes):
        kind = "bytes"
    else:
        kind = "text" if any(_is_json(tag) for tag in (annotation, *metadata)) or _is_string(adapter) else "json"
    return NamedDtypeCodec(dtype, leaf_codec(dtype), adapter, kind)


def _adapter(annotation: Any, metadata: Sequence[Any]) -> TypeAdapter[Any]:
    kind: Any = Annotated[(annotation, *metadata)] if metadata else annotation
    try:
        return TypeAdapter(kind, config=_CONFIG)
    except PydanticSchemaGenerationError:
        raise
    except PydanticUserError:  # a model, whose configuration cannot be replaced
        return TypeAdapter(kind)


def _is_json(tag: object) -> bool:
    return tag is Json or type(tag).__name__ == Json.__name__


def _is_string(adapter: TypeAdapter[Any]) -> bool:
    try:
        return adapter.json_schema(mode="serialization").get("type") == "string"
    except PydanticInvalidForJsonSchema:
        return False


def _is_same(found: Any, value: Any) -> bool:
    is_equal = bool(found == value or value != value)  # NaN
    return type(found) is type(value) and is_equal and _exact_text(found) == _exact_text(value)


def _exact_text(value: Any) -> Any:
    """Return text that differs for 1, 1.0 and True, but ignores the order of sets and the names of time zones."""
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    return value.isoformat() if isinstance(value, datetime | time) else repr(value)
