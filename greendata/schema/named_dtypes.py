"""Values in a dtype that is not their type's own, as in ``Annotated[dict, polars.String]``.

Nothing is taken for granted: what goes into a column has been read back first, as pydantic will read it, and was the
same. A value of which that is not so does not fit.
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
    """Values that are coded as others.

    In a column of text a value that is a string in JSON is that string, and any other its JSON; bytes are in base64,
    and secrets as what they hide.

    Attributes:
        cell: the codec of what they are coded as.
        adapter: what pydantic makes of it.
        kind: "text" if their JSON is a string, "bytes", "json", or "same" in columns of no text.
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
        except Exception as error:  # noqa: BLE001 - from the code of a user's type
            reason = error
        raise EncodeError(f"{type(value).__name__} does not come back from {self.dtype} as it was") from reason

    def decoder(self, dtype: Dtype) -> Convert | None:
        """See `ColumnCodec.decoder`."""
        is_coded = self.kind in {"bytes", "json"} and isinstance(dtype, _TEXTS)
        return (lambda encoded: None if encoded is None else self._value(encoded)) if is_coded else None

    def _codes(self, value: Any) -> Iterator[Any]:
        """What *value* may be coded as, the plainest first."""
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
        """What pydantic is to see of what is in a column."""
        try:
            if self.kind == "bytes":
                return b64decode(encoded, validate=True)
            return self.adapter.validate_json(encoded) if self.kind == "json" else encoded
        except ValidationError:  # it is text that is no JSON of such a value
            return encoded
        except ValueError:
            return _NoBase64(encoded)


class _NoBase64:
    """Text in the place of bytes, which pydantic would take for them."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def named_codec(annotation: Any, metadata: Sequence[Any], dtype: pl.DataType) -> NamedDtypeCodec:
    """The codec of values of a type in columns of *dtype*.

    Args:
        annotation: the type, with its *metadata*.

    Raises:
        PydanticUserError: pydantic does not know the type.

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
    except PydanticUserError:  # a model, which has its own
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
    return type(found) is type(value) and is_equal and _told(found) == _told(value)


def _told(value: Any) -> Any:
    """What tells equal values apart: 1, 1.0 and True; but no order of a set, and no names of time zones."""
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    return value.isoformat() if isinstance(value, datetime | time) else repr(value)
