"""What goes wrong where frames become bytes, and bytes become frames."""

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
)


class FrameMismatch(GreenDataError, ValueError):
    """A frame whose schema is not that of the frames before it in the file or stream. Nothing of it was written.

    Attributes:
        expected: the schema of the first frame, by column.
        got: that of the frame at hand.
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
        told = [f"{counted(len(missing), 'column')} missing: {', '.join(missing)}"] if missing else []
        told += [f"{counted(len(extra), 'column')} too many: {', '.join(extra)}"] if extra else []
        told += [
            f"column {name!r} is {self.got[name]}, expected {kind}"
            for name, kind in self.expected.items()
            if name in self.got and self.got[name] != kind
        ]
        return told or [f"its columns are in the order {', '.join(self.got)}, expected {', '.join(self.expected)}"]


class NotWritable(GreenDataError, TypeError):
    """A frame has columns of types that the format has no form for. Nothing of it was written.

    Attributes:
        format: what was to be written.
        columns: the dtype of each such column.
    """

    def __init__(self, format: str, columns: Mapping[str, object]) -> None:
        super().__init__(format, columns)
        self.format = format
        self.columns = columns

    def __str__(self) -> str:
        return f"{self.what}; drop, unnest or cast {'it' if len(self.columns) == 1 else 'them'}"

    @property
    def what(self) -> str:
        """What cannot be written, without what to do about it."""
        named = ", ".join(f"{name} ({dtype})" for name, dtype in sorted(self.columns.items()))
        return f"{counted(len(self.columns), 'column')} that {self.format} cannot store: {named}"


class ChunksBusy(GreenDataError, RuntimeError):
    """Two greenlets or threads asked one encoder for its next chunk at once."""

    def __str__(self) -> str:
        return "another greenlet is already waiting for the next chunk; give each consumer its own encode()"


class BodyTooLarge(GreenDataError, ValueError):
    """More bytes came than were allowed. Reading stopped there.

    Attributes:
        limit: in bytes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"the input is larger than the limit of {counted(self.limit, 'byte')}; send less, or raise max_bytes"


class Malformed(GreenDataError, ValueError):
    """Bytes that are not what they were said to be. What Polars had to say about them is the cause.

    Attributes:
        format: what was expected.
        reason: what is wrong.
        line: where, counted from 1; None where a format has no lines, or none could be made out.
        row: likewise, counted from 0.
        column: likewise, by name.
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
