"""`Frame[Model]`: a lazy Polars frame whose rows are instances of a pydantic model.

Operations are lazy, but each is checked against the columns at once. `collect`, `to_frame`, `to_dict`, `submit`,
`stream` and every ``write_*`` validate the rows: no method returns rows without validation.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar, cast

import polars as pl
from pydantic import BaseModel

from greendata.errors import NoModel, NotAFrame, NotFromHere, PlanRefused
from greendata.formats.frame_file import CsvFile, FrameFile, IpcFile, NdjsonFile, ParquetFile, discard
from greendata.hub.checks import checked_count
from greendata.hub.result import Result
from greendata.pool import pool
from greendata.query.batches import Batches
from greendata.query.choice import engine_for
from greendata.query.objects import to_columns
from greendata.query.options import options_for
from greendata.schema.column_names import column, referred
from greendata.tasks.caller import in_background
from greendata.typed.confinement import Sources, StrPath, resolve_target
from greendata.typed.derive import check_fit, model_after
from greendata.typed.inputs import frame_of_arrow, frame_of_columns, rows_of_columns
from greendata.typed.instances import PlanRows, frame_of_rows
from greendata.typed.model_stream import ModelStream
from greendata.typed.ndjson_rows import NdjsonRows
from greendata.typed.plan import plan_schema
from greendata.typed.scans import Kind, scan, translating_file_errors
from greendata.validation.verbs import Trust, validate

if TYPE_CHECKING:
    from greendata.internals.polars import (
        ArrowSchemaExportable,
        CsvEncoding,
        CsvQuoteStyle,
        IntoExpr,
        IpcCompression,
        JoinBuildSide,
        JoinStrategy,
        JoinValidation,
        MaintainOrderJoin,
        ParallelStrategy,
        ParquetCompression,
        ParquetMetadata,
        PolarsDataType,
        SchemaDefinition,
        SchemaDict,
        StorageOptionsDict,
        UniqueKeepStrategy,
    )

__all__ = ("Frame", "GroupedFrame")

M = TypeVar("M", bound=BaseModel)
N = TypeVar("N", bound=BaseModel)

BATCH_ROWS = 50_000  # rows of a batch: a few megabytes, so that a batch is quick and the cost of a job is small

_bound: weakref.WeakValueDictionary[type[BaseModel], type[Frame[Any]]] = weakref.WeakValueDictionary()


class Frame(Generic[M]):
    """A lazy frame whose rows are instances of *M*. Create one with a class method such as ``Frame[User].from_rows``.

    Operations take Polars' expressions and return another frame. Operations that keep the columns keep the model.
    `with_columns` creates a subclass of it if it adds columns. `select`, `drop`, `rename`, `join` and ``agg`` derive a
    model in which every column that keeps its name and its type keeps its field, with constraints and field
    validators. `as_model` binds another model. The validation leaves out columns that the model does not know, and
    fills missing optional columns with their defaults.

    All methods may block the calling greenlet, but never the hub. Safe from any thread. Validators run each time rows
    are taken, so a validator should accept its own results unchanged.

    Attributes:
        model: the class of the rows.
        schema: the columns of the plan, before the validation.
        plan: the lazy frame itself, whose rows are not validated.
        trust: how much the validation may rely on the frame, see `greendata.validation.verbs.validate`.

    Example:
        >>> class User(BaseModel):
        ...     name: str
        ...     age: int
        >>> users = Frame[User].from_columns({"name": ["Ann", "Bob"], "age": [41, 17]})
        >>> users.filter(pl.col("age") >= 18).collect()
        [User(name='Ann', age=41)]
    """

    __slots__ = ("_ndjson", "_sources", "plan", "schema", "trust")

    model: ClassVar[type[BaseModel]]

    def __init__(
        self,
        plan: pl.LazyFrame,
        schema: pl.Schema | None = None,
        *,
        trust: Trust = "off",
        sources: tuple[Sources, ...] = (),
        texts: NdjsonRows[M] | None = None,
    ) -> None:
        if not isinstance(schema, pl.Schema):  # called by a user, and not by one of the methods that make frames
            raise NotFromHere(type(self).__name__, plan)
        self.plan = plan
        self.schema = schema
        self.trust: Trust = trust
        self._sources = sources
        self._ndjson = texts  # the rows of the plan as text, or None if they have no text or an operation changed them

    def __class_getitem__(cls, model: Any) -> Any:
        """Return the class of frames of *model*, always the same one; with a type variable, a generic alias."""
        if isinstance(model, TypeVar):
            return super().__class_getitem__(model)  # type: ignore[misc]
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise NoModel(model)
        bound = _bound.get(model)
        if bound is None:
            bound = _bound[model] = type(
                f"Frame[{model.__name__}]", (cls._unbound_class(),), {"__slots__": (), "model": model}
            )
        return bound

    # -- construction -----------------------------------------------------------------------------------

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, object] | M], *, trust: Trust = "off") -> Self:
        """Make a frame of dicts and models, which are validated at once, in slices on the hub.

        Args:
            trust: for the validation when rows are taken, see `greendata.validation.verbs.validate`.

        Raises:
            NotFromHere: *rows* is a frame, a mapping or a result.
            FrameInvalid: rows are invalid.

        Example:
            >>> class User(BaseModel):
            ...     name: str
            >>> Frame[User].from_rows([{"name": "Ann"}, User(name="Bob")]).to_dict()
            {'name': ['Ann', 'Bob']}
        """
        model = cls._bound_model()
        if isinstance(rows, pl.DataFrame | pl.LazyFrame | Mapping | Result):
            raise NotFromHere(f"{cls.__name__}.from_rows", rows)
        df = frame_of_rows(rows, model)
        return cls(df.lazy(), df.schema, trust=trust, sources=())

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any], *, trust: Trust = "off") -> Self:
        """Make a frame of columns: Python sequences, which are validated at once, or Series and arrays, which are not.

        Raises:
            NotFromHere: *columns* is a frame or a result.
            ColumnsUnequal, BadArgument: the columns do not form a frame.
            FrameInvalid: rows are invalid.
            ModelMismatch: the arrays do not fit the columns of the model.
        """
        model = cls._bound_model()
        given: object = columns
        if isinstance(given, pl.DataFrame | pl.LazyFrame | Result):
            raise NotFromHere(f"{cls.__name__}.from_columns", columns)
        df = frame_of_columns(columns)
        if df is None:
            df = frame_of_rows(rows_of_columns(columns), model)
        return cls.from_frame(df, trust=trust)

    @classmethod
    def from_frame(cls, frame: pl.DataFrame | pl.LazyFrame, *, trust: Trust = "off") -> Self:
        """Make a frame of an eager or lazy frame of Polars.

        Raises:
            NotAFrame: *frame* is neither.
            ModelMismatch: the columns do not fit the model.
        """
        if not isinstance(frame, pl.DataFrame | pl.LazyFrame):
            raise NotAFrame(frame, "LazyFrame")
        plan = frame.lazy()
        schema = frame.schema if isinstance(frame, pl.DataFrame) else pool.call(plan.collect_schema)
        check_fit(schema, cls._bound_model())
        return cls(plan, schema, trust=trust, sources=())

    @classmethod
    def from_arrow(cls, data: object, *, trust: Trust = "off") -> Self:
        """Make a frame of an object with an Arrow C stream or array: of pyarrow, DuckDB, ADBC, or another frame.

        Raises:
            NotArrow: *data* has neither.
            PlanRefused: *data* cannot be read.
            ModelMismatch: the columns do not fit the model.
        """
        cls._bound_model()
        return cls.from_frame(frame_of_arrow(data), trust=trust)

    @classmethod
    def scan_parquet(
        cls,
        path: StrPath,
        *,
        root: StrPath | None = None,
        trust: Trust = "off",
        n_rows: int | None = None,
        row_index_name: str | None = None,
        row_index_offset: int = 0,
        parallel: ParallelStrategy = "auto",
        use_statistics: bool = True,
        hive_partitioning: bool | None = None,
        glob: bool = True,
        hidden_file_prefix: str | Sequence[str] | None = None,
        schema: SchemaDict | None = None,
        hive_schema: SchemaDict | None = None,
        try_parse_hive_dates: bool = True,
        low_memory: bool = False,
        cache: bool = True,
        storage_options: StorageOptionsDict | None = None,
        credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
        include_file_paths: str | None = None,
        missing_columns: Literal["insert", "raise"] = "raise",
        extra_columns: Literal["ignore", "raise"] = "raise",
        cast_options: pl.ScanCastOptions | None = None,
        decryption: pl.ParquetDecryptionProperties | None = None,
    ) -> Self:
        """Scan a Parquet file. Only the schema is read now.

        Args:
            path: a file, a folder of files or a glob; without a root also anything else that Polars accepts, such as
                ``s3://...`` with its *storage_options*.
            root: the folder that *path* must not leave, see `greendata.typed.confinement`.
            trust: see `greendata.validation.verbs.validate`.
            n_rows: stop after so many rows.
            row_index_name: the name of a column to add that numbers the rows.
            row_index_offset: the number of the first row in it.
            parallel: what is read in parallel: "auto", "columns", "row_groups", "prefiltered" or "none".
            use_statistics: skip what cannot match by the statistics in the file.
            hive_partitioning: read columns from names of folders such as ``year=2024``; None if the path is a folder.
            glob: the characters ``*``, ``?`` and ``[`` in a path form a pattern.
            hidden_file_prefix: files whose names begin with this text, or one of these, are skipped in folders.
            schema: the names and types of all columns; nothing is inferred then.
            hive_schema: the types of these columns.
            try_parse_hive_dates: read these columns as dates where they look like that.
            low_memory: use less memory, and more time.
            cache: read a file once if the plan uses it more than once.
            storage_options: options of the object store, for a path in a cloud.
            credential_provider: a function that returns credentials for the cloud; "auto" finds them; None uses none.
            include_file_paths: the name of a column to add that has the path of each row's file.
            missing_columns: for columns that some files lack: "insert" nulls, or "raise".
            extra_columns: for columns that only some files have: "ignore" or "raise".
            cast_options: which differences between types of the files are converted, a `polars.ScanCastOptions`.
            decryption: how an encrypted file is decrypted; needs Polars 2.1.

        Raises:
            PathRefused, FileMissing: *path* is not allowed or does not exist.
            UnreadableFile: the file has another format, or is truncated.
            ModelMismatch: the columns do not fit the model.
        """
        return cls._scan("parquet", path, root, trust, options_for(cls.scan_parquet, pl.scan_parquet, locals()))

    @classmethod
    def scan_csv(
        cls,
        path: StrPath,
        *,
        root: StrPath | None = None,
        trust: Trust = "off",
        has_header: bool = True,
        separator: str = ",",
        comment_prefix: str | None = None,
        quote_char: str | None = '"',
        skip_rows: int = 0,
        skip_lines: int = 0,
        schema: SchemaDict | None = None,
        schema_overrides: SchemaDict | Sequence[PolarsDataType] | None = None,
        null_values: str | Sequence[str] | dict[str, str] | None = None,
        empty_string_is_null: bool = True,
        ignore_errors: bool = False,
        with_column_names: Callable[[list[str]], list[str]] | None = None,
        infer_schema: bool = True,
        infer_schema_length: int | None = 100,
        infer_schema_files: int = 10,
        n_rows: int | None = None,
        encoding: CsvEncoding = "utf8",
        low_memory: bool = False,
        skip_rows_after_header: int = 0,
        row_index_name: str | None = None,
        row_index_offset: int = 0,
        try_parse_dates: bool = False,
        eol_char: str = "\n",
        new_columns: Sequence[str] | None = None,
        truncate_ragged_lines: bool | None = None,
        raise_if_empty: bool | None = None,
        decimal_comma: bool = False,
        glob: bool = True,
        storage_options: StorageOptionsDict | None = None,
        credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
        include_file_paths: str | None = None,
        extra_columns: Literal["ignore", "raise"] | None = None,
        missing_columns: Literal["insert", "raise"] | None = None,
    ) -> Self:
        """Scan a CSV file. Its columns are read in the types of the model.

        Args:
            path: a file, a folder of files or a glob; without a root also anything else that Polars accepts, such as
                ``s3://...`` with its *storage_options*.
            root: the folder that *path* must not leave, see `greendata.typed.confinement`.
            trust: see `greendata.validation.verbs.validate`.
            has_header: the first line has the names of the columns.
            separator: the character between two values.
            comment_prefix: lines that begin with this text are skipped.
            quote_char: the character around quoted values; None if nothing is quoted.
            skip_rows: the number of rows to skip before the header.
            skip_lines: the number of lines to skip before the header, whatever is in them.
            schema: the names and types of all columns, in their order; nothing is inferred then.
            schema_overrides: the types of some columns: by name, or for the first ones in order.
            null_values: the texts that mean null: one, several, or one for each column.
            empty_string_is_null: read empty values as null.
            ignore_errors: read values that do not fit their type as null.
            with_column_names: a function that is given the names of the columns and returns new ones.
            infer_schema: infer types; otherwise all columns are text.
            infer_schema_length: the number of rows from which types are inferred; None for all rows.
            infer_schema_files: the number of files from which types are inferred.
            n_rows: stop after so many rows.
            encoding: the encoding of the text, "utf8" or "utf8-lossy".
            low_memory: use less memory, and more time.
            skip_rows_after_header: the number of rows to skip after the header.
            row_index_name: the name of a column to add that numbers the rows.
            row_index_offset: the number of the first row in it.
            try_parse_dates: read texts that look like dates and times as such.
            eol_char: the character at the end of a line.
            new_columns: new names for the columns, from the first on.
            truncate_ragged_lines: drop the values of a line that are more than the columns.
            raise_if_empty: raise an error if there is no data.
            decimal_comma: read floats with a comma as the decimal separator.
            glob: the characters ``*``, ``?`` and ``[`` in a path form a pattern.
            storage_options: options of the object store, for a path in a cloud.
            credential_provider: a function that returns credentials for the cloud; "auto" finds them; None uses none.
            include_file_paths: the name of a column to add that has the path of each row's file.
            extra_columns: for columns that only some files have: "ignore" or "raise".
            missing_columns: for columns that some files lack: "insert" nulls, or "raise".

        Raises:
            PathRefused, FileMissing: *path* is not allowed or does not exist.
            UnreadableFile: the file has another format, or is truncated.
            ModelMismatch: the columns do not fit the model.
        """
        return cls._scan("csv", path, root, trust, options_for(cls.scan_csv, pl.scan_csv, locals()))

    @classmethod
    def scan_ndjson(
        cls,
        path: StrPath,
        *,
        root: StrPath | None = None,
        trust: Trust = "off",
        schema: SchemaDefinition | None = None,
        schema_overrides: SchemaDefinition | None = None,
        infer_schema_length: int | None = 100,
        batch_size: int | None = 1024,
        n_rows: int | None = None,
        low_memory: bool = False,
        row_index_name: str | None = None,
        row_index_offset: int = 0,
        ignore_errors: bool = False,
        storage_options: StorageOptionsDict | None = None,
        credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
        include_file_paths: str | None = None,
    ) -> Self:
        """Scan lines of JSON and validate each line by its text while it is read.

        The columns are those of the model, with the values that it converts to. A key that a line lacks gets its
        default. Taking rows raises an error with all invalid lines.

        A model with validators in Python, or with ``extra="allow"``, validates the lines when they are taken, so that
        its code runs once. Until then, the columns have the types that Polars infers from all lines, and after an
        operation the model validates these columns. A line whose columns would differ from its text is then an error:
        an integer is rounded because the column has fractions, or the line lacks a key that others have and the model
        distinguishes that from null.

        With options for types or columns, the columns are those of `polars.scan_ndjson`.

        Args:
            path: a file, a folder of files or a glob; without a root also anything else that Polars accepts, such as
                ``s3://...`` with its *storage_options*.
            root: the folder that *path* must not leave, see `greendata.typed.confinement`.
            trust: see `greendata.validation.verbs.validate`.
            schema: the names and types of all columns; nothing is inferred then.
            schema_overrides: the types of some columns, by name.
            infer_schema_length: the number of rows from which types are inferred; None for all rows.
            batch_size: the number of rows that one thread reads at a time.
            n_rows: stop after so many rows.
            low_memory: use less memory, and more time.
            row_index_name: the name of a column to add that numbers the rows.
            row_index_offset: the number of the first row in it.
            ignore_errors: read values that do not fit their type as null.
            storage_options: options of the object store, for a path in a cloud.
            credential_provider: a function that returns credentials for the cloud; "auto" finds them; None uses none.
            include_file_paths: the name of a column to add that has the path of each row's file.

        Raises:
            PathRefused, FileMissing: *path* is not allowed or does not exist.
            UnreadableFile: the file has another format, or is truncated.
            ModelMismatch: the columns do not fit the model.
        """
        return cls._scan("ndjson", path, root, trust, options_for(cls.scan_ndjson, pl.scan_ndjson, locals()))

    @classmethod
    def scan_ipc(
        cls,
        path: StrPath,
        *,
        root: StrPath | None = None,
        trust: Trust = "off",
        n_rows: int | None = None,
        row_index_name: str | None = None,
        row_index_offset: int = 0,
        glob: bool = True,
        storage_options: StorageOptionsDict | None = None,
        credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
        hive_partitioning: bool | None = None,
        hive_schema: SchemaDict | None = None,
        try_parse_hive_dates: bool = True,
        include_file_paths: str | None = None,
    ) -> Self:
        """Scan an Arrow IPC file.

        Args:
            path: a file, a folder of files or a glob; without a root also anything else that Polars accepts, such as
                ``s3://...`` with its *storage_options*.
            root: the folder that *path* must not leave, see `greendata.typed.confinement`.
            trust: see `greendata.validation.verbs.validate`.
            n_rows: stop after so many rows.
            row_index_name: the name of a column to add that numbers the rows.
            row_index_offset: the number of the first row in it.
            glob: the characters ``*``, ``?`` and ``[`` in a path form a pattern.
            storage_options: options of the object store, for a path in a cloud.
            credential_provider: a function that returns credentials for the cloud; "auto" finds them; None uses none.
            hive_partitioning: read columns from names of folders such as ``year=2024``; None if the path is a folder.
            hive_schema: the types of these columns.
            try_parse_hive_dates: read these columns as dates where they look like that.
            include_file_paths: the name of a column to add that has the path of each row's file.

        Raises:
            PathRefused, FileMissing: *path* is not allowed or does not exist.
            UnreadableFile: the file has another format, or is truncated.
            ModelMismatch: the columns do not fit the model.
        """
        return cls._scan("ipc", path, root, trust, options_for(cls.scan_ipc, pl.scan_ipc, locals()))

    # -- operations that keep the model -----------------------------------------------------------------

    def filter(self, *predicates: IntoExpr | Iterable[IntoExpr], **constraints: object) -> Self:
        """Keep the rows for which all *predicates* are true and whose columns equal the *constraints*.

        Every operation raises `UnknownColumn` for a missing column and `PlanRefused` for a wrong type.
        """
        equal = [column(name) == value for name, value in constraints.items()]
        reusable = self._reusable(predicates)
        return self._with_same_model("filter", lambda lf: lf.filter(*reusable, *equal))

    def sort(
        self,
        by: IntoExpr | Iterable[IntoExpr],
        *more_by: IntoExpr,
        descending: bool | Sequence[bool] = False,
        nulls_last: bool | Sequence[bool] = False,
        maintain_order: bool = False,
        multithreaded: bool = True,
    ) -> Self:
        """Sort the rows.

        Args:
            by: a column or an expression, or several.
            more_by: more of them; rows that are equal in the first are sorted by the next.
            descending: sort from large to small: for all columns, or for each.
            nulls_last: put nulls at the end: for all columns, or for each.
            maintain_order: keep the order of rows that are equal.
            multithreaded: sort in several threads.
        """
        options = options_for(self.sort, pl.LazyFrame.sort, locals())
        reusable = self._reusable((by, *more_by))
        return self._with_same_model("sort", lambda lf: lf.sort(*reusable, **options))

    def unique(
        self,
        subset: str | Iterable[str] | None = None,
        *,
        keep: UniqueKeepStrategy = "any",
        maintain_order: bool = True,
    ) -> Self:
        """Drop duplicate rows, compared in all columns or in those of *subset*.

        Args:
            subset: the names of the columns; None for all.
            keep: which of equal rows is kept: "first", "last", "any", or "none" of them.
            maintain_order: keep the order of the rows. False can be faster.

        Raises:
            PlanRefused: one of these columns has secrets, which Polars cannot compare.
        """
        names = [subset] if isinstance(subset, str) else subset and list(subset)
        _check_comparable("unique", self.schema if names is None else names, self.schema)
        columns = referred(names, self.schema)
        return self._with_same_model("unique", lambda lf: lf.unique(columns, keep=keep, maintain_order=maintain_order))

    def head(self, n: int = 5) -> Self:
        """Keep the first *n* rows."""
        return self._with_same_model("head", lambda lf: lf.head(n))

    limit = head

    def tail(self, n: int = 5) -> Self:
        """Keep the last *n* rows."""
        return self._with_same_model("tail", lambda lf: lf.tail(n))

    def slice(self, offset: int, length: int | None = None) -> Self:
        """Keep *length* rows from *offset* on."""
        return self._with_same_model("slice", lambda lf: lf.slice(offset, length))

    def with_columns(self, *exprs: IntoExpr | Iterable[IntoExpr], **named: IntoExpr) -> Frame[M]:
        """Add columns, or replace columns of the same name, if the result fits the model.

        Raises:
            ModelMismatch: a column of the model would get a type that does not fit.
        """
        reusable, named_exprs = self._reusable(exprs), self._reusable_named(named)
        lf, schema = self._plan("with_columns", lambda lf: lf.with_columns(*reusable, **named_exprs))
        check_fit(schema, self.model)
        before = pl.Schema({name: schema[name] for name in self.schema})
        model = model_after("with_columns", self.model, before, schema)
        return cast("Frame[M]", self._bind(model, lf, schema))

    # -- operations that derive a model -----------------------------------------------------------------

    def select(self, *exprs: IntoExpr | Iterable[IntoExpr], **named: IntoExpr) -> Frame[BaseModel]:
        """Select columns."""
        reusable, named_exprs = self._reusable(exprs), self._reusable_named(named)
        lf, schema = self._plan("select", lambda lf: lf.select(*reusable, **named_exprs))
        return self._bind(model_after("select", self.model, self.schema, schema, names_all=True), lf, schema)

    def drop(self, *columns: str, strict: bool = True) -> Frame[BaseModel]:
        """Drop columns.

        Args:
            columns: their names.
            strict: a column that does not exist is an error.
        """
        reusable = self._reusable(columns)
        return self._with_derived_model("drop", lambda lf: lf.drop(*reusable, strict=strict))

    def rename(self, mapping: Mapping[str, str], *, strict: bool = True) -> Frame[BaseModel]:
        """Rename columns. A renamed column gets a field of its type, without constraints.

        Args:
            mapping: the new names by the old ones.
            strict: a column that does not exist is an error.
        """
        return self._with_derived_model("rename", lambda lf: lf.rename(dict(mapping), strict=strict))

    def join(
        self,
        other: Frame[Any] | pl.LazyFrame | pl.DataFrame,
        on: str | pl.Expr | Iterable[str | pl.Expr] | None = None,
        *,
        how: JoinStrategy = "inner",
        left_on: str | pl.Expr | Sequence[str | pl.Expr] | None = None,
        right_on: str | pl.Expr | Sequence[str | pl.Expr] | None = None,
        suffix: str = "_right",
        validate: JoinValidation = "m:m",
        nulls_equal: bool = False,
        coalesce: bool | None = None,
        maintain_order: MaintainOrderJoin | None = "left",
        build_side: JoinBuildSide = "auto",
        allow_parallel: bool = True,
        force_parallel: bool = False,
    ) -> Frame[BaseModel]:
        """Join with *other*, whose rows are not validated.

        Args:
            other: a frame of Polars or of a model.
            on: the columns to compare, of the same names on both sides.
            how: "inner", "left", "right", "full", "semi", "anti" or "cross".
            left_on: the columns of this frame, if they have other names in *other*.
            right_on: the columns of *other*.
            suffix: is added to names of *other* that this frame has too.
            validate: check whether the columns to compare are unique: "1:1", "1:m", "m:1"; "m:m" checks nothing.
            nulls_equal: nulls are equal to nulls.
            coalesce: make one column of the two that were compared; None for what is usual for *how*.
            maintain_order: whose order the rows have: "left", "right", "left_right", "right_left", "none".
            build_side: the side of which Polars builds its table; "auto" lets it choose.
            allow_parallel: compute both frames at the same time.
            force_parallel: do so even where Polars would not.
        """
        options = options_for(self.join, pl.LazyFrame.join, locals())
        lazy, schema, sources = _operand(other)
        columns = referred(list(on) if on is not None and not isinstance(on, str | pl.Expr) else on, self.schema)
        _check_comparable("join", [on] if isinstance(on, str) else columns or (), self.schema)
        sides = {"left_on": self.schema, "right_on": schema}
        options |= {side: referred(options[side], names) for side, names in sides.items() if side in options}
        return self._with_derived_model(
            "join", lambda lf, right: lf.join(right, columns, **options), (lazy, schema), sources=sources
        )

    def group_by(
        self, *by: IntoExpr | Iterable[IntoExpr], maintain_order: bool = True, **named: IntoExpr
    ) -> GroupedFrame:
        """Group the rows for `GroupedFrame.agg`.

        Args:
            by: columns and expressions.
            maintain_order: keep the order in which the groups begin. False can be faster.
            named: expressions by the names of their columns.
        """
        return GroupedFrame(self, by, named, maintain_order=maintain_order)

    def as_model(self, model: type[N]) -> Frame[N]:
        """Return a frame of the same rows with *model*.

        Raises:
            ModelMismatch: the columns do not fit *model*.
        """
        bound = cast("type[Frame[N]]", self._unbound_class()[model])
        check_fit(self.schema, model)
        return bound(self.plan, self.schema, trust=self.trust, sources=self._sources)

    # -- validated results ------------------------------------------------------------------------------

    def collect(self) -> list[M]:
        """Return all rows as models. The query runs in the pool; the models are created on the hub, in slices.

        pydantic creates each model and so validates every value, whatever *trust* is.

        Raises:
            FrameInvalid: rows are invalid. The error has the row number, column, value and rule of each failure.
            UnreadableFile, FileMissing, PathRefused: a file cannot be read, or has changed.
        """
        rows = self._rows()
        return rows.models(self._collect_plan(rows.plan))

    def to_frame(self) -> pl.DataFrame:
        """Return all rows as a DataFrame with the model's columns. Raises the errors of `collect`."""
        rows = self._rows()
        return rows.frame(self._collect_plan(rows.plan))

    def to_dict(self) -> dict[str, list[Any]]:
        """Return lists of Python values by column, built in slices on the hub. Raises the errors of `collect`."""
        return to_columns(self.to_frame())

    def submit(self, *, timeout: float | None = None) -> Result[list[M]]:
        """Return the `Result` of `collect` at once. Cancelling it cancels the query.

        Args:
            timeout: the deadline in seconds.
        """
        return in_background(self.collect, timeout=timeout)

    def stream(self, *, batch_size: int = BATCH_ROWS, timeout: float | None = None) -> ModelStream[M]:
        """Return a stream of validated batches, which arrive while the query runs.

        Args:
            batch_size: the number of rows in a batch, or fewer if Polars returns fewer.
            timeout: the deadline of the whole stream in seconds.

        Raises:
            BadArgument, BadTimeout: an argument that cannot be used.
        """
        checked_count("batch_size", batch_size)
        rows = self._rows()
        begin = partial(_begin, rows.plan, self._sources, batch_size)
        batches = Batches(begin, timeout=timeout, label=f"stream of {self.model.__name__}")
        return ModelStream(batches, rows, sources=self._sources)

    def write_parquet(
        self,
        path: StrPath,
        *,
        root: StrPath | None = None,
        compression: ParquetCompression = "zstd",
        compression_level: int | None = None,
        statistics: bool | str | dict[str, bool] = True,
        row_group_size: int | None = None,
        data_page_size: int | None = None,
        use_pyarrow: bool = False,
        pyarrow_options: dict[str, Any] | None = None,
        metadata: ParquetMetadata | None = None,
        arrow_schema: ArrowSchemaExportable | None = None,
    ) -> int:
        """Write all rows to one Parquet file, batch by batch, and return their number.

        The file appears when it is complete. An error leaves an existing file unchanged.

        Args:
            path: the file. Its folder must exist.
            root: the folder that *path* must not leave, see `greendata.typed.confinement`.
            compression: "zstd", "lz4", "snappy", "gzip", "brotli" or "uncompressed".
            compression_level: the level of *compression*; None for its default. Higher means smaller and slower.
            statistics: write statistics of columns: True, False, "full", or a dict of the kinds.
            row_group_size: the number of rows in a row group; None makes one or more of each batch.
            data_page_size: the size of a data page in bytes; None for 1 MiB.
            use_pyarrow: let pyarrow write the file instead of Polars.
            pyarrow_options: keyword arguments for pyarrow.
            metadata: texts for the metadata of the file, or a function that returns them.
            arrow_schema: the Arrow schema that is stored in the file; None for that of the frame.

        Raises:
            PathRefused, FileMissing: *path* is not allowed, or its folder does not exist.
            NotWritable: the format has no form for a column, such as one of secrets.
            FrameInvalid and the other errors of `collect`.
        """
        options = options_for(self.write_parquet, pl.DataFrame.write_parquet, locals())
        return self._write(ParquetFile, path, root, options)

    def write_csv(
        self,
        path: StrPath,
        *,
        root: StrPath | None = None,
        include_bom: bool = False,
        compression: Literal["uncompressed", "gzip", "zstd"] = "uncompressed",
        compression_level: int | None = None,
        include_header: bool = True,
        separator: str = ",",
        line_terminator: str = "\n",
        quote_char: str = '"',
        batch_size: int = 1024,
        datetime_format: str | None = None,
        date_format: str | None = None,
        time_format: str | None = None,
        float_scientific: bool | None = None,
        float_precision: int | None = None,
        decimal_comma: bool = False,
        null_value: str | None = None,
        quote_style: CsvQuoteStyle | None = None,
    ) -> int:
        """Write all rows to one CSV file, batch by batch, and return their number; see `write_parquet`.

        Args:
            path: the file. Its folder must exist.
            root: the folder that *path* must not leave, see `greendata.typed.confinement`.
            include_bom: begin with a byte order mark, which Excel needs to read UTF-8.
            compression: "uncompressed", "gzip" or "zstd".
            compression_level: the level of *compression*; None for its default. Higher means smaller and slower.
            include_header: write the names of the columns in the first line.
            separator: the character between two values.
            line_terminator: the text at the end of each line.
            quote_char: the character around values that need quoting.
            batch_size: the number of rows that one thread writes at a time.
            datetime_format: a strftime format for datetimes; None for the precision of the column.
            date_format: a strftime format for dates.
            time_format: a strftime format for times.
            float_scientific: write floats always (True) or never (False) with an exponent; None lets Polars choose.
            float_precision: the number of decimal places of floats; None for as many as needed.
            decimal_comma: write floats with a comma as the decimal separator.
            null_value: the text for nulls; None for nothing.
            quote_style: which values are quoted: "necessary" (also if None), "always", "non_numeric" or "never".

        Raises:
            PathRefused, FileMissing: *path* is not allowed, or its folder does not exist.
            FrameInvalid and the other errors of `collect`.
        """
        options = options_for(self.write_csv, pl.DataFrame.write_csv, locals())
        return self._write(CsvFile, path, root, options)

    def write_ndjson(self, path: StrPath, *, root: StrPath | None = None) -> int:
        """Write all rows as lines of JSON; see `write_parquet`."""
        return self._write(NdjsonFile, path, root, {})

    def write_ipc(
        self,
        path: StrPath,
        *,
        root: StrPath | None = None,
        compression: IpcCompression | None = "uncompressed",
        compat_level: pl.CompatLevel | None = None,
        record_batch_size: int | None = None,
    ) -> int:
        """Write all rows to one Arrow IPC file and return their number; see `write_parquet`.

        Batches are kept in separate files next to it until the last one is written.

        Args:
            path: the file. Its folder must exist.
            root: the folder that *path* must not leave, see `greendata.typed.confinement`.
            compression: "uncompressed", "lz4" or "zstd".
            compat_level: the version of Arrow's types that the file uses, a `polars.CompatLevel`; None for the newest.
            record_batch_size: the number of rows in a record batch; None to keep those of the batches.

        Raises:
            PathRefused, FileMissing: *path* is not allowed, or its folder does not exist.
            FrameInvalid and the other errors of `collect`.
        """
        options = options_for(self.write_ipc, pl.LazyFrame.sink_ipc, locals())
        return self._write(IpcFile, path, root, options)

    def __repr__(self) -> str:
        columns = ", ".join(f"{name}: {dtype}" for name, dtype in self.schema.items())
        return f"<{type(self).__name__} of {columns}>"

    # -- private ----------------------------------------------------------------------------------------

    @classmethod
    def _scan(cls, kind: Kind, path: StrPath, root: StrPath | None, trust: Trust, options: dict[str, Any]) -> Self:
        model = cls._bound_model()
        found = pool.call(scan, kind, path, root, model, options)
        if found.texts is None:
            check_fit(found.schema, model)
            return cls(found.frame, found.schema, trust=trust, sources=(found.sources,))
        texts = NdjsonRows(found.texts, found.sources, model)
        return cls(found.frame, found.schema, trust=trust, sources=(found.sources,), texts=texts)

    def _rows(self) -> PlanRows[M] | NdjsonRows[M]:
        """Return the object that has the plan to run and validates its rows."""
        if self._ndjson is not None and self.trust == "off":
            return self._ndjson
        return PlanRows(self.plan, self._row_model(), self.trust)

    def _collect_plan(self, plan: pl.LazyFrame) -> pl.DataFrame:
        with translating_file_errors(self._sources):
            return pool.execute(_collected, plan, self._sources)

    def _write(
        self,
        kind: type[FrameFile],
        path: StrPath,
        root: StrPath | None,
        options: dict[str, Any],
    ) -> int:
        found = pool.call(resolve_target, path, root)
        file = kind(Path(found.paths[0]), options)
        try:
            with self.stream() as batches:
                for batch in batches:
                    pool.call(file.append, batch)
            if not file.rows:
                pool.call(file.append, validate(pl.DataFrame(schema=self.schema), self.model, trust=self.trust))
            pool.call(partial(found.check, must_exist=False))
            pool.call(file.finish)
        except BaseException:
            discard(file)
            raise
        return file.rows

    @classmethod
    def _bound_model(cls) -> type[M]:
        if not hasattr(cls, "model"):
            raise NoModel
        return cast("type[M]", cls.model)

    def _row_model(self) -> type[M]:
        return cast("type[M]", self.model)

    @classmethod
    def _unbound_class(cls) -> Any:
        """Return the nearest base class without a model, which ``[]`` can bind to one."""
        return next(base for base in cls.__mro__ if not hasattr(base, "model"))

    def _reusable(self, exprs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return *exprs* so that they can be used twice: for the check and for the plan. Names are not patterns."""
        reusable = (list(expr) if isinstance(expr, Iterator) else expr for expr in exprs)
        return tuple(referred(expr, self.schema) for expr in reusable)

    def _reusable_named(self, exprs: Mapping[str, Any]) -> dict[str, Any]:
        """Do the same as `_reusable` for expressions that are given by keyword."""
        return {name: referred(expr, self.schema) for name, expr in exprs.items()}

    def _plan(
        self, verb: str, build: Callable[..., pl.LazyFrame], *others: tuple[pl.LazyFrame, pl.Schema]
    ) -> tuple[pl.LazyFrame, pl.Schema]:
        schema = pool.call(plan_schema, verb, (self.schema, *(schema for _, schema in others)), build)
        return build(self.plan, *(lf for lf, _ in others)), schema

    def _with_same_model(self, verb: str, build: Callable[..., pl.LazyFrame]) -> Self:
        lf, schema = self._plan(verb, build)
        return type(self)(lf, schema, trust=self.trust, sources=self._sources)

    def _with_derived_model(
        self,
        verb: str,
        build: Callable[..., pl.LazyFrame],
        *others: tuple[pl.LazyFrame, pl.Schema],
        computed: frozenset[str] = frozenset(),
        sources: tuple[Sources, ...] = (),
    ) -> Frame[BaseModel]:
        lf, schema = self._plan(verb, build, *others)
        model = model_after(verb, self.model, self.schema, schema, computed=computed)
        return self._bind(model, lf, schema, sources)

    def _bind(
        self, model: type[BaseModel], lf: pl.LazyFrame, schema: pl.Schema, sources: tuple[Sources, ...] = ()
    ) -> Frame[BaseModel]:
        bound = cast("type[Frame[BaseModel]]", self._unbound_class()[model])
        return bound(lf, schema, trust=self.trust, sources=(*self._sources, *sources))


class GroupedFrame:
    """Rows of a frame in groups. `Frame.group_by` returns one.

    Example:
        >>> from greendata import Frame
        >>> class Sale(BaseModel):
        ...     city: str
        ...     amount: int
        >>> sales = Frame[Sale].from_columns({"city": ["Rome", "Oslo", "Rome"], "amount": [1, 2, 3]})
        >>> sales.group_by("city").agg(pl.col("amount").sum()).sort("city").to_dict()
        {'city': ['Oslo', 'Rome'], 'amount': [2, 4]}
    """

    def __init__(
        self, frame: Frame[Any], by: tuple[Any, ...], named: Mapping[str, Any], *, maintain_order: bool = True
    ) -> None:
        self._frame = frame
        self._maintain_order = maintain_order
        self._by = frame._reusable(by)
        self._by_named = frame._reusable_named(named)

    def agg(self, *exprs: IntoExpr | Iterable[IntoExpr], **named: IntoExpr) -> Frame[BaseModel]:
        """Return one row for each group. Computed columns get fields of their types."""
        frame = self._frame
        reusable, named_exprs = frame._reusable(exprs), frame._reusable_named(named)
        keys = frame.select(*self._by, **self._by_named).schema

        def build(lf: pl.LazyFrame) -> pl.LazyFrame:
            return lf.group_by(*self._by, maintain_order=self._maintain_order, **self._by_named).agg(
                *reusable, **named_exprs
            )

        lf, schema = frame._plan("agg", build)
        computed = schema.keys() - keys.keys()
        model = model_after("agg", frame.model, frame.schema, schema, computed=computed, names_all=True)
        return frame._bind(model, lf, schema)


def _check_comparable(verb: str, names: Iterable[Any], schema: pl.Schema) -> None:
    """Raise PlanRefused if the operation compares a column of secrets: Polars would panic when it runs."""
    secret = next((name for name in names if isinstance(name, str) and schema.get(name) == pl.Object), None)
    if secret is not None:
        raise PlanRefused(verb, f"Polars cannot compare the secrets of {secret!r}; name other columns", schema)


def _operand(other: object) -> tuple[pl.LazyFrame, pl.Schema, tuple[Sources, ...]]:
    if isinstance(other, Frame):
        return other.plan, other.schema, other._sources
    if not isinstance(other, pl.DataFrame | pl.LazyFrame):
        raise NotAFrame(other, "LazyFrame")
    lazy = other.lazy()
    return lazy, pool.call(lazy.collect_schema), ()


def _collected(plan: pl.LazyFrame, sources: tuple[Sources, ...]) -> pl.DataFrame:
    for source in sources:
        source.check()
    return plan.collect(engine=engine_for("auto", "collect"))


def _begin(plan: pl.LazyFrame, sources: tuple[Sources, ...], rows: int) -> Any:
    for source in sources:
        source.check()
    return plan.collect_batches(chunk_size=rows, maintain_order=True, engine=engine_for("auto", "batches"))
