"""Options for reading CSV, named as in `polars.read_csv`: separator, encoding, header, null, comments."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from greendata.errors import BadArgument
from greendata.hub.checks import is_count

__all__ = ("CsvOptions", "NullValues")

NullValues = str | Sequence[str] | Mapping[str, str]

_LOSSY = "utf8-lossy"  # Polars' name
_NO_SEPARATOR = '"\r\n\0'


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvOptions:
    r"""Options for reading CSV.

    Attributes:
        separator: the ASCII character between two fields.
        encoding: "utf8", "utf8-lossy" (bytes that are not UTF-8 become U+FFFD), or a text encoding of Python.
        has_header: whether the first record has the names of the columns. If not, they are those of the schema or of
            the model, in their order, or else Polars' ("column_0", ...).
        null_values: the text, or texts, that stand for null besides an empty field, or one text for each column.
        comment_prefix: lines that begin with it, outside of quotes, are ignored.
        skip_rows: how many records before the header, or before the first row, are ignored. Comments do not count.
        rename_duplicates: whether columns of one name are renamed as Polars does ("a", "a_duplicated_0", ...). If not,
            they are an error.

    Raises:
        BadArgument: a value is invalid.

    Example:
        >>> CsvOptions(separator=";;")
        Traceback (most recent call last):
        greendata.errors.arguments.BadArgument: separator must be one ASCII character, ..., got ';;'
    """

    separator: str = ","
    encoding: str = "utf8"
    has_header: bool = True
    null_values: NullValues | None = None
    comment_prefix: str | None = None
    skip_rows: int = 0
    rename_duplicates: bool = False

    def __post_init__(self) -> None:
        separator, prefix = self.separator, self.comment_prefix
        if not (_is_text(separator) and len(separator) == 1 and separator.isascii() and separator not in _NO_SEPARATOR):
            raise BadArgument("separator", separator, "one ASCII character, not a quote or a line break")
        if not _is_encoding(self.encoding):
            raise BadArgument("encoding", self.encoding, "utf8, utf8-lossy or a text encoding of Python")
        for name in ("has_header", "rename_duplicates"):
            if not isinstance(getattr(self, name), bool):
                raise BadArgument(name, getattr(self, name), "True or False")
        if not _are_null_values(self.null_values):
            raise BadArgument(
                "null_values", self.null_values, "a string, several strings, or a dict of one string for each column"
            )
        if prefix is not None and not (_is_text(prefix) and prefix and not set(prefix) & set(_NO_SEPARATOR)):
            raise BadArgument("comment_prefix", prefix, "a string that is not empty and has no quote or line break")
        if not is_count(self.skip_rows, least=0):
            raise BadArgument("skip_rows", self.skip_rows, "a whole number of rows >= 0")

    @property
    def is_utf8(self) -> bool:
        """True if the text is UTF-8, and an error otherwise."""
        return self.encoding != _LOSSY and codecs.lookup(self.encoding).name == "utf-8"

    @property
    def codec(self) -> tuple[str, str]:
        """The encoding and the treatment of errors, for Python's decoders."""
        return ("utf-8", "replace") if self.encoding == _LOSSY else (self.encoding, "strict")

    def as_arguments(self) -> dict[str, Any]:
        """Return the options by their names."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def changed(self) -> tuple[str, ...]:
        """The names of the options that differ from the defaults."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) != field.default)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_encoding(name: object) -> bool:
    if not isinstance(name, str):
        return False
    try:
        return name == _LOSSY or isinstance(b"a".decode(name), str)
    except UnicodeError:  # an encoding in which this is not text, such as UTF-16
        return True
    except (LookupError, ValueError):  # an encoding of bytes, such as zlib, or none
        return False


def _are_null_values(value: Any) -> bool:
    if value is None or isinstance(value, str):
        return True
    if isinstance(value, Mapping):
        return all(isinstance(text, str) for text in (*value.keys(), *value.values()))
    return isinstance(value, Sequence) and not isinstance(value, bytes) and all(isinstance(text, str) for text in value)
