"""Errors of encoding frames as bytes, and of decoding them."""

from __future__ import annotations

from collections.abc import Mapping

from greendata.errors.plural import counted
from greendata.errors.root import GreenDataError

__all__ = (
    "BodyTooLarge",
    "ChunksBusy",
    "FrameMismatch",
    "Malformed",
    "NotWritable",
    "TooCostly",
)


class FrameMismatch(GreenDataError, ValueError):
    """A frame's schema differs from that of earlier frames in the file or stream. Nothing of the frame was written.

    Attributes:
        expected: the schema of the first frame, by column.
        got: the schema of this frame.
    """

    def __init__(self, expected: Mapping[str, object], got: Mapping[str, object]) -> None:
        super().__init__(expected, got)
        self.expected = expected
        self.got = got

    def __str__(self) -> str:
        return (
            f"a frame differs from the frames before it: {'; '.join(self._differences())}. "
            "One file has one schema: give it to batch(schema=...), or cast the frames"
        )

    def _differences(self) -> list[str]:
        missing = sorted(self.expected.keys() - self.got.keys())
        extra = sorted(self.got.keys() - self.expected.keys())
        found = [f"{counted(len(missing), 'column')} missing: {', '.join(missing)}"] if missing else []
        found += [f"{counted(len(extra), 'column')} too many: {', '.join(extra)}"] if extra else []
        found += [
            f"column {name!r} is {self.got[name]}, expected {kind}"
            for name, kind in self.expected.items()
            if name in self.got and self.got[name] != kind
        ]
        return found or [f"its columns are in the order {', '.join(self.got)}, expected {', '.join(self.expected)}"]


class NotWritable(GreenDataError, TypeError):
    """A frame has columns of types that the format cannot store. Nothing of the frame was written.

    Attributes:
        format: the format to write.
        columns: the dtype of each column that cannot be stored.
    """

    def __init__(self, format: str, columns: Mapping[str, object]) -> None:
        super().__init__(format, columns)
        self.format = format
        self.columns = columns

    def __str__(self) -> str:
        them = "it" if len(self.columns) == 1 else "them"
        if any(str(dtype) == "Object" for dtype in self.columns.values()):
            return f"{self.what}; drop {them}, or store a secret in plain text: Annotated[SecretStr, polars.String]"
        return f"{self.what}; drop, unnest or cast {them}"

    @property
    def what(self) -> str:
        """The first part of the text, without the hint."""
        named = ", ".join(f"{name} ({dtype})" for name, dtype in sorted(self.columns.items()))
        return f"{counted(len(self.columns), 'column')} that {self.format} cannot store: {named}"


class ChunksBusy(GreenDataError, RuntimeError):
    """Two greenlets or threads asked one encoder for its next chunk at the same time."""

    def __str__(self) -> str:
        return "another greenlet is already waiting for the next chunk; give each consumer its own encode()"


class BodyTooLarge(GreenDataError, ValueError):
    """The input has more bytes than allowed. Reading stopped at the limit.

    Attributes:
        limit: the limit in bytes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"the input is larger than the limit of {counted(self.limit, 'byte')}; send less, or raise max_bytes"


class Malformed(GreenDataError, ValueError):
    """Bytes that are not valid in the expected format. ``__cause__`` is Polars' error, if there is one.

    Attributes:
        format: the expected format.
        reason: what is wrong.
        line: the line, counted from 1; None if the format has no lines, or the line is unknown.
        row: the row, counted from 0, or None.
        column: the name of the column, or None.
    """

    def __init__(
        self, format: str, reason: str, *, line: int | None = None, row: int | None = None, column: str | None = None
    ) -> None:
        super().__init__(format, reason, line, row, column)
        self.format = format
        self.reason = reason
        self.line = line
        self.row = row
        self.column = column

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        row = "" if self.row is None else f", row {self.row}"
        column = "" if self.column is None else f", column {self.column!r}"
        return f"not valid {self.format}{line}{row}{column}: {self.reason}"


class TooCostly(Malformed):
    """Reading untrusted input took more memory or time than a child process has for it. The child was ended.

    Attributes:
        limit: with its unit.

    Example:
        >>> print(TooCostly("parquet", "30 seconds"))
        cannot read this parquet: it takes more than 30 seconds
    """

    def __init__(self, format: str, limit: str) -> None:
        super().__init__(format, f"it takes more than {limit}")
        self.args = (format, limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"cannot read this {self.format}: {self.reason}"
