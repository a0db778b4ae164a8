"""Errors of typed frames: their paths, their plans and their data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from greendata.errors.plural import counted
from greendata.errors.root import GreenDataError

__all__ = (
    "ColumnsUnequal",
    "FileMissing",
    "ModelMismatch",
    "NoModel",
    "NotArrow",
    "NotFromHere",
    "PathRefused",
    "PlanRefused",
    "UnknownColumn",
    "UnreadableFile",
)


class PathRefused(GreenDataError, ValueError):
    """A path leads out of its root, or is not a valid path inside it. Nothing was opened.

    Attributes:
        path: the path relative to the root, or as it was given.
        reason: what is wrong with it.

    Example:
        >>> print(PathRefused("../secret", "it has '..' in it"))
        path '../secret' is refused: it has '..' in it; name a file inside the root
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"path {self.path!r} is refused: {self.reason}; name a file inside the root"


class FileMissing(GreenDataError, FileNotFoundError):
    """There is no file of that name, or no folder to write it into.

    Attributes:
        path: the path, relative to the root if there is one.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"there is no file or folder {self.path!r}"


class UnreadableFile(GreenDataError, ValueError):
    """A file cannot be read in its format, or a computation from it fails; ``__cause__`` is Polars' error.

    Attributes:
        paths: the files that the plan reads, relative to their roots.
        reason: the first line of Polars' message.
    """

    def __init__(self, paths: Iterable[str], reason: str) -> None:
        self.paths = tuple(paths)
        super().__init__(self.paths, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot read {', '.join(self.paths)}: {self.reason}"


class NotFromHere(GreenDataError, TypeError):
    """The method that was called to make a typed frame does not accept the data.

    Attributes:
        call: what was called.
        data: what was given.

    Example:
        >>> print(NotFromHere("Frame[User]", [{"name": "Ann"}]))
        Frame[User]() does not take a list; write Frame[User].from_rows(...)
    """

    def __init__(self, call: str, data: object) -> None:
        super().__init__(call, data)
        self.call = call
        self.data = data

    def __str__(self) -> str:
        frame = self.call.partition(".")[0]
        kind = type(self.data).__name__
        if kind in ("Result", "TaskResult"):
            return f"{self.call}() does not take a {kind}; call get() on it first"
        if kind in ("DataFrame", "LazyFrame"):
            maker = "from_frame"
        elif isinstance(self.data, Mapping):
            maker = "from_columns"
        else:
            maker = "from_arrow" if hasattr(self.data, "__arrow_c_stream__") else "from_rows"
        user = frame if "[" in frame else f"{frame}[User]"
        return f"{self.call}() does not take a {kind}; write {user}.{maker}(...)"


class NoModel(GreenDataError, TypeError):
    """A typed frame needs a pydantic model, and none was given.

    Attributes:
        thing: what was given instead, or None.
    """

    def __init__(self, thing: object = None) -> None:
        super().__init__(thing)
        self.thing = thing

    def __str__(self) -> str:
        got = "got none" if self.thing is None else f"got {self.thing!r}"
        return f"a typed frame needs a pydantic model, {got}; write Frame[User], with class User(pydantic.BaseModel)"


class NotArrow(GreenDataError, TypeError):
    """The object that should provide data has no Arrow C stream.

    Attributes:
        thing: what was given.
    """

    def __init__(self, thing: object) -> None:
        super().__init__(thing)
        self.thing = thing

    def __str__(self) -> str:
        return f"expected an object with __arrow_c_stream__ or __arrow_c_array__, got {type(self.thing).__name__}"


class ColumnsUnequal(GreenDataError, ValueError):
    """Columns for one frame differ in length.

    Attributes:
        lengths: the number of rows of each column.
    """

    def __init__(self, lengths: Mapping[str, int]) -> None:
        super().__init__(lengths)
        self.lengths = dict(lengths)

    def __str__(self) -> str:
        shown = ", ".join(f"{name}: {rows}" for name, rows in sorted(self.lengths.items()))
        return f"{len(self.lengths)} columns of {len(set(self.lengths.values()))} lengths: {shown}; they must be equal"


class ModelMismatch(GreenDataError, ValueError):
    """The columns of a frame do not fit the model, whatever their values.

    Attributes:
        model: the name of the model.
        missing: columns that the model requires and the frame lacks, sorted.
        misfits: for each column that does not fit, the type that it has and the one that the model expects.
        hints: for columns that the frame lacks, which of its columns may be meant.
    """

    def __init__(
        self,
        model: str,
        missing: Iterable[str],
        misfits: Mapping[str, tuple[object, object]],
        hints: Iterable[str] = (),
    ) -> None:
        self.missing = tuple(sorted(missing))
        self.misfits = dict(sorted(misfits.items()))
        self.hints = tuple(hints)
        super().__init__(model, self.missing, self.misfits, self.hints)
        self.model = model

    def __str__(self) -> str:
        do = counted(len(self.missing) + len(self.misfits), "column does", "columns do")
        parts = [f"no column {name!r}" for name in self.missing]
        parts += [f"column {name!r} is {got}, not {expected}" for name, (got, expected) in self.misfits.items()]
        hints = self.hints if self.hints and not self.misfits else (*self.hints, "rename(), select() or cast() first")
        return f"{do} not fit {self.model}: {', '.join(parts)}; {'; '.join(hints)}"


class PlanRefused(GreenDataError, ValueError):
    """Polars cannot plan an operation on these columns; ``__cause__`` is its error. The frame is unchanged.

    Attributes:
        verb: the operation.
        reason: the first line of Polars' message.
        columns: the frame's columns and their types.
    """

    def __init__(self, verb: str, reason: str, columns: Mapping[str, object]) -> None:
        super().__init__(verb, reason, columns)
        self.verb = verb
        self.reason = reason
        self.columns = dict(columns)

    def __str__(self) -> str:
        shown = ", ".join(f"{name}: {dtype}" for name, dtype in self.columns.items())
        return f"{self.verb}() cannot be planned: {self.reason}; the columns are {shown}"


class UnknownColumn(PlanRefused, LookupError):
    """An operation names a column that the frame does not have; ``__cause__`` is Polars' error.

    Attributes:
        column: the name.
    """

    def __init__(self, verb: str, column: str, columns: Mapping[str, object]) -> None:
        super().__init__(verb, f"no column {column!r}", columns)
        self.column = column

    def __str__(self) -> str:
        names = sorted(self.columns)
        close = get_close_matches(self.column, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        expected = f"expected one of {', '.join(names)}" if names else "and the frame has no columns"
        return f"{self.verb}() names the column {self.column!r}, {expected}{hint}"
