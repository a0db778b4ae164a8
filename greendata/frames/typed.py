"""`Frame[Model]`: a lazy Polars frame whose rows are instances of a pydantic model, whichever way they are taken.

Nothing is computed before it is taken; every operation is checked against the columns at once. The rows are validated
by `collect`, `to_frame`, `to_dict`, `submit`, `stream` and every ``write_*``: there is no way out without it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import polars as pl
from pydantic import BaseModel

from greendata.errors import BadArgument, NotAFrame
from greendata.frames.batches import Batches
from greendata.frames.derive import check_fit
from greendata.frames.framefile import CsvFile, FrameFile, IpcFile, NdjsonFile, ParquetFile, discard
from greendata.frames.instances import frame_of_rows, models_of
from greendata.frames.intake import frame_of_arrow, frame_of_columns, rows_of_columns
from greendata.frames.modelstream import ModelStream
from greendata.frames.objects import to_columns
from greendata.frames.relation import Relation
from greendata.frames.roots import Sources, StrPath, target
from greendata.frames.scans import Kind, reading, scan
from greendata.frames.validation import Trust, validate
from greendata.hub import pool
from greendata.hub.background import in_background
from greendata.hub.result import Result

__all__ = ("Frame",)

M = TypeVar("M", bound=BaseModel)

BATCH_ROWS = 50_000  # rows of a batch, some megabytes: few enough to wait for, enough that a job's cost is nothing


class Frame(Relation[M]):
    """A lazy frame of rows that are *M*. ``Frame[User]`` is the class to make one from, `from_rows` and the others.

    Operations take Polars' own expressions and return another frame. Those that keep the columns keep the model;
    `with_columns` makes a subclass of it where it adds columns; `select`, `drop`, `rename`, `join` and ``agg`` derive a
    model in which every column that keeps its name and its type keeps its field, with constraints and field
    validators. `as_model` binds another one. Columns that the model does not know are left out by the validation,
    and optional ones that are missing get their defaults.

    All methods may block the calling greenlet and never the hub; safe from any thread. Validators run each time rows
    are taken, so they should leave alone what they have made.

    Attributes:
        model: the class of the rows.
        schema: the columns of the plan, before the validation.
        plan: the lazy frame itself, whose rows nobody has validated.

    Example:
        >>> class User(BaseModel):
        ...     name: str
        ...     age: int
        >>> users = Frame[User].from_columns({"name": ["Ann", "Bob"], "age": [41, 17]})
        >>> users.filter(pl.col("age") >= 18).collect()
        [User(name='Ann', age=41)]
    """

    __slots__ = ()

    # -- in ---------------------------------------------------------------------------------------------

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, object] | M], *, trust: Trust = "off") -> Self:
        """A frame of dicts and of models, validated here and now, in slices on the hub.

        Args:
            trust: of the validation when rows are taken, see `greendata.frames.validation.validate`.

        Raises:
            FrameInvalid: rows that do not fit.

        Example:
            >>> class User(BaseModel):
            ...     name: str
            >>> Frame[User].from_rows([{"name": "Ann"}, User(name="Bob")]).to_dict()
            {'name': ['Ann', 'Bob']}
        """
        df = frame_of_rows(rows, cls._own_model())
        return cls(df.lazy(), df.schema, trust=trust, sources=())

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any], *, trust: Trust = "off") -> Self:
        """A frame of columns: Python sequences, which are validated at once, or Series and arrays, which are not.

        Raises:
            ColumnsUnequal, BadArgument: they make no frame.
            FrameInvalid: rows that do not fit.
            ModelMismatch: the arrays cannot be columns of the model.
        """
        model = cls._own_model()
        df = frame_of_columns(columns)
        if df is None:
            df = frame_of_rows(rows_of_columns(columns), model)
        return cls.from_frame(df, trust=trust)

    @classmethod
    def from_frame(cls, frame: pl.DataFrame | pl.LazyFrame, *, trust: Trust = "off") -> Self:
        """A frame over Polars' own, eager or lazy.

        Raises:
            NotAFrame: it is none.
            ModelMismatch: its columns cannot be the model's.
        """
        if not isinstance(frame, pl.DataFrame | pl.LazyFrame):
            raise NotAFrame(frame, "LazyFrame")
        plan = frame.lazy()
        schema = frame.schema if isinstance(frame, pl.DataFrame) else pool.call(plan.collect_schema)
        check_fit(schema, cls._own_model())
        return cls(plan, schema, trust=trust, sources=())

    @classmethod
    def from_arrow(cls, data: object, *, trust: Trust = "off") -> Self:
        """A frame of anything with an Arrow C stream or array: a table of pyarrow, DuckDB, ADBC, another frame.

        Raises:
            NotArrow: it has none.
            PlanRefused: it cannot be read.
            ModelMismatch: its columns cannot be the model's.
        """
        cls._own_model()
        return cls.from_frame(frame_of_arrow(data), trust=trust)

    @classmethod
    def scan_parquet(cls, path: StrPath, *, root: StrPath | None = None, trust: Trust = "off", **options: Any) -> Self:
        """A frame over a Parquet file, of which no more is read now than its schema.

        Args:
            path: a file, a folder of files or a glob; without a root also what else Polars takes, ``s3://...`` with
                its ``storage_options``.
            root: the folder that *path* must not leave, see `greendata.frames.roots`.
            trust: see `greendata.frames.validation.validate`.
            options: those of `polars.scan_parquet`.

        Raises:
            PathRefused, FileMissing: the path.
            UnreadableFile: it is no such file, or it is cut short.
            ModelMismatch: its columns cannot be the model's.
        """
        return cls._scan("parquet", path, root, trust, options)

    @classmethod
    def scan_csv(cls, path: StrPath, *, root: StrPath | None = None, trust: Trust = "off", **options: Any) -> Self:
        """A frame over a CSV file; its columns are read as what the model says. Arguments as of `scan_parquet`."""
        return cls._scan("csv", path, root, trust, options)

    @classmethod
    def scan_ndjson(cls, path: StrPath, *, root: StrPath | None = None, trust: Trust = "off", **options: Any) -> Self:
        """A frame over lines of JSON, each judged by its own text while it is read. Arguments as of `scan_parquet`.

        Its columns are those of the model, with their values as it coerces them: a key that a line lacks has its
        default, and taking rows raises with all lines that fail. With *options*, and for a model with validators
        in Python, which would run twice, or with ``extra="allow"``, the types are inferred as by
        `polars.scan_ndjson`: a key that a line lacks is null there, and an integer in a list is rounded where a
        fraction stands beside it.
        """
        return cls._scan("ndjson", path, root, trust, options)

    @classmethod
    def scan_ipc(cls, path: StrPath, *, root: StrPath | None = None, trust: Trust = "off", **options: Any) -> Self:
        """A frame over an Arrow IPC file. Arguments as of `scan_parquet`."""
        return cls._scan("ipc", path, root, trust, options)

    # -- out: validated ---------------------------------------------------------------------------------

    def collect(self) -> list[M]:
        """All rows as models. The query runs in the pool; the models are made on the hub, in slices.

        pydantic makes each of them, and so looks at every value, whatever *trust* says.

        Raises:
            FrameInvalid: rows that do not fit: each with its number, column, value and rule.
            UnreadableFile, FileMissing, PathRefused: a file is not what it was, or should be.
        """
        return models_of(self._computed(), self._row_model())

    def to_frame(self) -> pl.DataFrame:
        """All rows as a DataFrame with the model's columns; raises what `collect` does."""
        return validate(self._computed(), self.model, trust=self.trust)

    def to_dict(self) -> dict[str, list[Any]]:
        """All rows as lists of Python values by column, made in slices on the hub; raises what `collect` does."""
        return to_columns(self.to_frame())

    def submit(self, *, timeout: float | None = None) -> Result[list[M]]:
        """The `Result` of `collect`, at once. Cancelling it gives the query up.

        Args:
            timeout: the deadline in seconds.
        """
        return in_background(self.collect, timeout=timeout)

    def stream(self, *, batch_size: int = BATCH_ROWS, timeout: float | None = None) -> ModelStream[M]:
        """All rows in validated batches, while the query still runs.

        Args:
            batch_size: rows in a batch, fewer where Polars has no more at hand.
            timeout: the deadline of the whole stream in seconds.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise BadArgument("batch_size", batch_size, "a whole number >= 1")
        begin = partial(_begin, self.plan, self._sources, batch_size)
        batches = Batches(begin, timeout=timeout, label=f"stream of {self.model.__name__}")
        return ModelStream(batches, self._row_model(), trust=self.trust, sources=self._sources)

    def write_parquet(self, path: StrPath, *, root: StrPath | None = None, **options: Any) -> int:
        """Write all rows into one Parquet file, batch by batch; returns how many there were.

        The file appears when it is complete; whatever goes wrong before leaves what was there.

        Args:
            path: the file; its folder has to be there.
            root: the folder that it must not leave, see `greendata.frames.roots`.
            options: those of `polars.DataFrame.write_parquet`.

        Raises:
            PathRefused, FileMissing: the path.
            FrameInvalid and the other errors of `collect`.
        """
        return self._write(ParquetFile, pl.DataFrame.write_parquet, path, root, options)

    def write_csv(self, path: StrPath, *, root: StrPath | None = None, **options: Any) -> int:
        """Write all rows into one CSV file; see `write_parquet`, with the options of `polars.DataFrame.write_csv`."""
        return self._write(CsvFile, pl.DataFrame.write_csv, path, root, options)

    def write_ndjson(self, path: StrPath, *, root: StrPath | None = None) -> int:
        """Write all rows as lines of JSON; see `write_parquet`."""
        return self._write(NdjsonFile, pl.DataFrame.write_ndjson, path, root, {})

    def write_ipc(self, path: StrPath, *, root: StrPath | None = None, **options: Any) -> int:
        """Write all rows into one Arrow IPC file; see `write_parquet`, with the options of `polars.LazyFrame.sink_ipc`.

        Batches wait in files of their own beside it until the last one is there.
        """
        return self._write(IpcFile, pl.LazyFrame.sink_ipc, path, root, options)

    # -- private ----------------------------------------------------------------------------------------

    @classmethod
    def _scan(cls, kind: Kind, path: StrPath, root: StrPath | None, trust: Trust, options: dict[str, Any]) -> Self:
        model = cls._own_model()
        found = pool.call(scan, kind, path, root, model, options)
        check_fit(found.schema, model)
        return cls(found.frame, found.schema, trust=trust, sources=(found.sources,))

    def _computed(self) -> pl.DataFrame:
        with reading(self._sources):
            return pool.call(_collected, self.plan, self._sources)

    def _write(
        self,
        kind: type[FrameFile],
        polars_write: Callable[..., Any],
        path: StrPath,
        root: StrPath | None,
        options: dict[str, Any],
    ) -> int:
        inspect.signature(polars_write).bind(None, None, **options)
        place = pool.call(target, path, root)
        file = kind(Path(place.paths[0]), options)
        try:
            with self.stream() as batches:
                for batch in batches:
                    pool.call(file.append, batch)
            if not file.rows:
                pool.call(file.append, validate(pl.DataFrame(schema=self.schema), self.model, trust=self.trust))
            pool.call(partial(place.check, must_exist=False))
            pool.call(file.finish)
        except BaseException:
            discard(file)
            raise
        return file.rows


def _collected(plan: pl.LazyFrame, sources: tuple[Sources, ...]) -> pl.DataFrame:
    for source in sources:
        source.check()
    return plan.collect()


def _begin(plan: pl.LazyFrame, sources: tuple[Sources, ...], rows: int) -> Any:
    for source in sources:
        source.check()
    return plan.collect_batches(chunk_size=rows, maintain_order=True)
