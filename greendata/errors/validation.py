"""Errors of models, and of frames that are validated against them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from greendata.errors.notes import shortened
from greendata.errors.plural import counted
from greendata.errors.root import GreenDataError

if TYPE_CHECKING:
    import polars as pl

__all__ = (
    "DuplicateColumn",
    "FrameInvalid",
    "NoColumnForm",
    "NotAModel",
)

WITHOUT_VALUE = ("missing", "extra_forbidden")  # rules whose failures are not about the value
UNCHECKED = "unchecked"  # the rule of rows that were not checked, because enough other rows fail
HINT = "choose a dtype, as in Annotated[..., polars.String]"

SHOWN = 5  # kinds of failure in the text of an error; its frame has all of them
SHOWN_COLUMNS = ("column", "value", "rule", "message")


class NotAModel(GreenDataError, TypeError):
    """The object to validate against is not a model.

    Attributes:
        model: what was given.

    Example:
        >>> print(NotAModel(int))
        expected a pydantic model class, or a class with its own validate(frame), got <class 'int'>
    """

    def __init__(self, model: object) -> None:
        super().__init__(model)
        self.model = model

    def __str__(self) -> str:
        hint = ""
        if isinstance(self.model, type) and hasattr(self.model, "model_fields"):  # a RootModel
            hint = "; make it a field of a model"
        elif hasattr(type(self.model), "model_fields"):
            hint = "; pass its class"
        got = shortened(self.model)
        return f"expected a pydantic model class, or a class with its own validate(frame), got {got}{hint}"


class NoColumnForm(GreenDataError, TypeError):
    """The type of a field cannot be stored in a column, or a field cannot have the type of a column.

    Attributes:
        field: the field with its model, or the column.
        type: its type.
        reason: why it cannot be stored.
        hint: what to write instead.

    Example:
        >>> print(NoColumnForm("User.ids", Iterable[int], "its values can be read only once", "write list[...]"))
        User.ids: collections.abc.Iterable[int] cannot be stored in a column: its values can be read only once; \
write list[...]
    """

    def __init__(self, field: str, type: object, reason: str, hint: str = HINT) -> None:
        super().__init__(field, type, reason, hint)
        self.field = field
        self.type = type
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        name = self.type.__qualname__ if isinstance(self.type, type) else str(self.type)
        return f"{self.field}: {name} cannot be stored in a column: {self.reason}; {self.hint}"


class DuplicateColumn(GreenDataError, ValueError):
    """Two fields of one model would be stored in one column.

    Attributes:
        model: the model's name.
        column: the column.
        fields: the fields.

    Example:
        >>> print(DuplicateColumn("User", "id", ("key", "number")))
        2 fields of User have the column 'id': key, number; give each a different alias
    """

    def __init__(self, model: str, column: str, fields: Iterable[str]) -> None:
        self.fields = tuple(fields)
        super().__init__(model, column, self.fields)
        self.model = model
        self.column = column

    def __str__(self) -> str:
        names = ", ".join(self.fields)
        count = len(self.fields)
        return f"{count} fields of {self.model} have the column {self.column!r}: {names}; give each a different alias"


class FrameInvalid(GreenDataError, ValueError):
    """Rows of a frame are invalid for the model. Nothing was returned.

    Attributes:
        model: the model's name.
        rows: the number of rows of the frame that was validated.
        failures: one row for each failure: ``row`` (its number from 0; null if the whole column fails), ``column``,
            ``value``, ``rule``, ``message``. After 10 000 failures no more rows are checked. A last row, with the
            rule ``unchecked``, has the number of unchecked rows as its value. If bytes were decoded, there is also a
            column ``line``: the line of the bytes, from 1, in which the row begins.
        hints: for columns that the frame lacks, which of its columns may be meant.
    """

    def __init__(self, model: str, rows: int, failures: pl.DataFrame, hints: Iterable[str] = ()) -> None:
        self.hints = tuple(hints)
        super().__init__(model, rows, failures, self.hints)
        self.model = model
        self.rows = rows
        self.failures = failures

    @classmethod
    def with_text(cls, model: str, rows: int, failures: pl.DataFrame, hints: Iterable[str] = ()) -> FrameInvalid:
        """Return the error with its text already built, which runs a query on all failures. Call on a worker."""
        error = cls(model, rows, failures, hints)
        str(error)
        return error

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:  # built on first use, on any thread; every thread builds the same text
        is_unchecked = self.failures["rule"] == UNCHECKED
        found = self.failures.filter(~is_unchecked)
        unchecked = sum(map(int, self.failures["value"].filter(is_unchecked)))
        kinds = found.group_by("column", "rule", maintain_order=True)
        firsts = kinds.first().select("row", *(["line"] if "line" in found.columns else []), *SHOWN_COLUMNS)
        bad = self.rows if found["row"].has_nulls() else found["row"].n_unique()
        summary = f"{counted(len(found), 'failure')} in {bad} of {counted(self.rows, 'row')} of {self.model}"
        more = f", and {counted(unchecked, 'row is', 'rows are')} not checked" if unchecked else ""
        lines = [f"{summary}{more}; see .failures"]
        shown = zip(kinds.len()["len"].head(SHOWN), firsts.head(SHOWN).to_dicts(), strict=True)
        lines += [_line(count, **first) for count, first in shown]
        if firsts.height > SHOWN:
            lines.append(f"  and {counted(firsts.height - SHOWN, 'kind')} more")
        lines += [f"  {hint}" for hint in self.hints]
        return "\n".join(lines)


def _line(count: int, *, row: int | None, line: int | None = None, **failure: str | None) -> str:
    where = "the column" if row is None else f"row {row}" if line is None else f"row {row} (line {line})"
    column, value, rule, message = (failure[name] for name in SHOWN_COLUMNS)
    times = f"{count} times {rule}, first in {where}" if count > 1 else f"{rule} in {where}"
    got = "" if rule in WITHOUT_VALUE else f", got {value}"
    return f"  {'the row' if column is None else column or repr(column)}: {times}{got}: {message}"
