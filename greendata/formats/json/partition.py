"""Validate JSON rows against a model, each by its own text, as ``Model.model_validate_json(row)`` does.

The frame that Polars reads from a body depends on all of its rows: an integer in a column with fractions is rounded,
and a key that some rows lack is null there. So only rows of one shape (`greendata.formats.json.shapes`) are read as a
frame. In this frame the partitioner accepts the rows that are certainly valid. A body that one program has written
mostly has one shape. pydantic validates the text of all other rows, and of values that no query can check.

There is one difference from pydantic: bytes are in base64, as `encode` writes them, unless the model sets
``val_json_bytes``.

                               rows as text
                                    |
              same shape?   yes     |     no
             +----------------------+----------------------+
             v                                             |
   a frame, read by Polars                                 |
   a query checks its rows                                 |
             |                                             |
     +-------+-------------+                               |
     v                     v                               v
   accepted            undecided  -------------->  pydantic, row by row
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import polars as pl
from polars.exceptions import PanicException, PolarsError
from pydantic import BaseModel

from greendata.errors import GreenDataError, Malformed
from greendata.formats.format import Format
from greendata.formats.guards.chunk_scan import first_byte
from greendata.formats.guards.size_guard import reject_sparse
from greendata.formats.json.reader import read_ndjson
from greendata.formats.json.rows import BOM, STRING, names_of_columns, read_columns, rows_of, without_members
from greendata.formats.json.shapes import Kind, Mapped, Shape, ShapeError, kind_of, shape_of
from greendata.hub.pacing import release_gil
from greendata.internals.pydantic import validator_of
from greendata.schema.codecs import ColumnCodec, PairsCodec
from greendata.schema.column_names import referred
from greendata.schema.failures import FAILURES, ROW_KEY, Failures
from greendata.schema.fields import columns_of
from greendata.schema.limits import ELEMENTS
from greendata.validation.column_validation import ColumnCheck, ColumnValidator
from greendata.validation.partitioner import ColumnPlan, Part, Partitioned, Partitioner, assign, numbered
from greendata.validation.row_validation import RowValidator, Validator, take_rows

__all__ = ("InvalidJson", "JsonPartitioner", "lines_of", "partition_rows")

SHAPES = 8  # to try in a body, at most: each one is matched against all remaining rows
MIN_ROWS = 64  # after the first shape: with fewer rows, pydantic is faster than another shape
TEXT_BYTES = 1 << 22  # to copy from Polars in one step: half a millisecond

NONE_REJECTED = pl.DataFrame(schema={ROW_KEY: pl.UInt32, "column": pl.String, "value": pl.String})
LARGE = f"only pydantic can validate the row, and it has more than {ELEMENTS} elements"


class InvalidJson(GreenDataError):
    """A row is not valid JSON. Raised and caught within greendata only.

    Attributes:
        row: the number of the row, from 0.
        reason: what is wrong, and where in the row.
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(row, reason)
        self.row = row
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _TextValidator(RowValidator):
    """A validator that passes the text of whole rows to pydantic."""

    def rows(self, places: pl.Series) -> Iterator[Any]:
        """See `Validator.rows`."""
        texts: list[str] = take_rows(self.frame.to_series(), places).to_list()
        return iter(texts)

    def valid(self, number: int, row: Any, failures: Failures) -> list[Any] | None:
        """See `Validator.valid`.

        Raises:
            InvalidJson: the row is not valid JSON.
        """
        before = len(failures)
        values = RowValidator.valid(self, number, row, failures)
        if values is None and len(failures) == before + 1:
            _, place, _, rule, message = failures[-1]
            if rule == "json_invalid" and place is None:
                raise InvalidJson(number, message)
        return values


@dataclass(frozen=True, slots=True)
class _TokenValidator(ColumnValidator):
    """A validator that passes the texts of some columns to pydantic, for rows of one shape."""

    def _values(self, field: ColumnCheck, places: pl.Series) -> Iterator[Any]:
        if field.source is None:
            return ColumnValidator._values(self, field, places)
        return iter(take_rows(self.frame[field.source], places).to_list())


def partition_rows(
    content: bytes, format: Format, model: type[BaseModel], texts: pl.Series | None = None
) -> Partitioned:
    """Partition the rows in *content* into accepted and undecided ones. Call on a worker.

    Args:
        format: json or ndjson.
        model: the model that the rows must satisfy.
        texts: what `rows_of` returns for *content*, if another process has found them. Then Polars does not read
            *content* here.

    Raises:
        Malformed: *content* is not *format*. The rows themselves are not parsed here.
        NotAModel, NoColumnForm, DuplicateColumn: see `schema_of`.

    Example:
        >>> class User(BaseModel):
        ...     age: int = 7
        >>> partition_rows(b'[{"age": 1}, {}]', "json", User).height
        2
    """
    partitioner = JsonPartitioner(model)
    is_array = _is_array(content)
    if texts is None and format == "json" and not is_array:
        found = _partition_columns(content, partitioner)
        if found is not None:
            return found
    rows = rows_of(content, format) if texts is None else texts
    reject_sparse(rows.len(), len(partitioner.shape_partitioner.columns), len(content), format=format)
    whole = content if texts is None and (format == "ndjson" or is_array) else None
    return _Partitioning(partitioner, rows, whole, format).partitioned()


def _is_array(content: bytes) -> bool:
    return content[first_byte(content) :][:1] == b"["


def _partition_columns(content: bytes, partitioner: JsonPartitioner) -> Partitioned | None:
    """Partition an object of columns if each column has one kind of values and all rows are valid; else return None."""
    kinds = {
        name: kind_of(column.codec.dtype) for column in partitioner.shape_partitioner.columns for name in column.sources
    }
    names = names_of_columns(content)
    shape = Shape(tuple((name, kinds[name]) for name in names if name in kinds))
    dtypes = shape.schema
    plan = None if len(shape.fields) < len(names) or not dtypes else partitioner.shape_partitioner.plan(dtypes)
    if plan is None or plan.checks or partitioner.shape_partitioner.all_invalid(dtypes):
        return None
    df = read_columns(content, shape)
    if df is None:
        return None
    parts, undecided, rejected = partitioner.shape_partitioner.partition(df, plan, all_invalid=False)
    if undecided.len():
        return None
    no_texts = pl.DataFrame({"": []}, {"": pl.String})
    validator = _TextValidator(no_texts, partitioner.shape_partitioner.columns, partitioner.check)
    assigned = assign([(0, undecided, undecided)])
    return Partitioned(df.height, parts, (validator,), assigned, rejected, pl.DataFrame(schema=FAILURES), None)


def lines_of(texts: pl.Series) -> Iterator[tuple[int, int, bytes]]:
    r"""Yield *texts* as lines of NDJSON, some megabytes at a time, with the range of the texts in each piece.

    Each item is the index of the first text, the index after the last text, and the lines.

    Example:
        >>> [*lines_of(pl.Series(["{}", "[\n]"]))]
        [(0, 2, b'{}\n[ ]')]
    """
    ends = texts.str.len_bytes().cast(pl.UInt64).cum_sum()
    begin = 0
    while begin < texts.len():
        before = 0 if begin == 0 else int(ends[begin - 1])
        end = max(begin + 1, int(ends.search_sorted(before + TEXT_BYTES, "right")))
        lines: bytes = texts[begin:end].str.replace_all("\n", " ", literal=True).str.join("\n").cast(pl.Binary).item()
        yield begin, end, lines
        release_gil()
        begin = end


class JsonPartitioner:
    """A partitioner of the texts of rows for a model. Call it on a worker.

    Attributes:
        shape_partitioner: the partitioner of frames, for rows of one shape.
        check: a function that returns the instance of the model for the text of a row, or raises ValidationError.

    Raises:
        NotAModel, NoColumnForm, DuplicateColumn: see `schema_of`.

    Example:
        >>> class User(BaseModel):
        ...     age: int = 7
        >>> JsonPartitioner(User)(pl.Series(['{"age": 1}', "{}"])).height
        2
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self.shape_partitioner = Partitioner(model, columns_of(model), None, from_json=True)
        self.check = validator_of(self.shape_partitioner.core).validate_json

    def __call__(self, texts: pl.Series) -> Partitioned:
        """Partition the rows with these *texts*."""
        return _Partitioning(self, texts, None, "ndjson").partitioned()


class _Partitioning:
    """The state of partitioning the rows of one body."""

    def __init__(self, partitioner: JsonPartitioner, texts: pl.Series, content: bytes | None, format: Format) -> None:
        self._content = content
        self._format = format
        self._texts = texts
        self._partitioner = partitioner.shape_partitioner
        self._whole = _TextValidator(texts.to_frame(), partitioner.shape_partitioner.columns, partitioner.check)
        self._validators: list[Validator] = [self._whole]
        self._parts: list[Part] = []
        self._assignments: list[tuple[int, pl.Series, pl.Series]] = []  # in the form that `assign` takes
        self._undecided: list[pl.Series] = []
        self._rejected: list[pl.DataFrame] = [NONE_REJECTED]

    def partitioned(self) -> Partitioned:
        """Return the partitioned rows."""
        left = pl.int_range(self._texts.len(), dtype=pl.UInt32, eager=True)
        wanted = {name: column.codec.dtype for column in self._partitioner.columns for name in column.sources}
        known = Shape(
            tuple((name, _kind_for(column.codec)) for column in self._partitioner.columns for name in column.sources)
        )
        for _ in range(SHAPES):
            if not left.len() or (self._parts and left.len() < MIN_ROWS):
                break
            try:
                shape = shape_of(self._texts[int(left[0])], wanted, known)
                is_alike = self._texts[left].str.contains(shape.row())
            except (ShapeError, PolarsError):  # PolarsError: the pattern exceeds a limit of Polars
                is_alike = pl.Series([False])
            if not is_alike[0]:  # one of its values does not match the pattern of its kind
                self._undecided.append(left.head(1))
                left = left.slice(1)
                continue
            alike = left.filter(is_alike)
            if self._parts and alike.len() < MIN_ROWS:
                self._undecided.append(alike)
            else:
                self._partition_shape(alike, shape)
            left = left.filter(~is_alike)
            known = Shape(tuple({**dict(known.fields), **dict(shape.fields)}.items()))
        undecided, over_limits = _within_limits(self._texts, pl.concat([*self._undecided, left]).sort())
        rejected = pl.concat(self._rejected)
        return Partitioned(
            height=self._texts.len(),
            parts=self._parts,
            validators=tuple(self._validators),
            assigned=assign([(0, undecided, undecided), *self._assignments], rejected[ROW_KEY]),
            rejected=rejected,
            over_limits=over_limits,
            extras=self._extras if self._partitioner.model.model_config.get("extra") == "allow" else None,
        )

    def _partition_shape(self, numbers: pl.Series, shape: Shape) -> None:
        """Partition the rows of these *numbers*, which have one shape."""
        dtypes = {key: kind.dtype or pl.Null() for key, kind in shape.fields}
        plan = self._partitioner.plan(dtypes)
        df = None if plan is None else self._read_shape(numbers, shape)
        if plan is None or df is None:
            self._undecided.append(numbers)
            return
        parts, undecided, rejected = self._partitioner.partition(
            df, plan, all_invalid=self._partitioner.all_invalid(dtypes)
        )
        validator = None
        if plan.checks:
            validator = len(self._validators)
            self._validators.append(self._validator(numbers, shape, plan))
        for part in parts:
            accepted = numbered(part.accepted, numbers)
            if validator is not None:
                self._assignments.append((validator, accepted[ROW_KEY], part.accepted[ROW_KEY]))
            self._parts.append(Part(accepted, part.all_invalid, validator))
        self._undecided.append(numbers[undecided])
        self._rejected.append(numbered(rejected, numbers))

    def _validator(self, numbers: pl.Series, shape: Shape, plan: ColumnPlan) -> _TokenValidator:
        """Return the validator of the columns that only pydantic can check, from the texts of their values."""
        sources = {field.source for field in plan.checks if field.source is not None}
        tokens = self._tokens(numbers, shape, sources)
        return _TokenValidator(tokens, [field.column for field in plan.checks], plan.checks, self._whole)

    def _read_shape(self, numbers: pl.Series, shape: Shape) -> pl.DataFrame | None:
        """Return rows of one shape as a frame, or None if Polars cannot read them."""
        mapped = {key: kind for key, kind in shape.fields if isinstance(kind, Mapped)}
        schema = pl.Schema({key: dtype for key, dtype in shape.schema.items() if key not in mapped})
        df = self._read(numbers, schema)
        if df is None or not mapped:
            return df
        tokens = self._tokens(numbers, shape, mapped)
        try:
            return df.hstack([mapped[token.name].pairs(token).alias(token.name) for token in tokens.iter_columns()])
        except PolarsError:
            return None

    def _tokens(self, numbers: pl.Series, shape: Shape, keys: Collection[str]) -> pl.DataFrame:
        """Return the texts of the values of some *keys*, in rows of one shape."""
        tokens = self._texts[numbers].str.extract_groups(shape.row(captured=keys)).struct.unnest()
        tokens.columns = [key for key, _ in shape.fields if key in keys]
        return tokens

    def _read(self, numbers: pl.Series, schema: pl.Schema) -> pl.DataFrame | None:
        """Return rows of one shape as a frame, or None if Polars cannot read them."""
        if not schema:
            return pl.DataFrame(height=numbers.len())
        try:
            if numbers.len() == self._texts.len() and (whole := self._read_whole(schema)) is not None:
                return whole
            frames = [pl.read_ndjson(lines, schema=schema) for _, _, lines in lines_of(self._texts[numbers])]
        except (PolarsError, PanicException):
            return None
        df = pl.concat(frames)
        return df if df.height == numbers.len() else None

    def _read_whole(self, schema: pl.Schema) -> pl.DataFrame | None:
        """Read the whole body, whose rows all have one shape; return None if Polars must read the rows as lines."""
        if self._content is None or self._content.startswith(BOM):
            return None
        reader = pl.read_json if _is_array(self._content) else pl.read_ndjson
        df = reader(self._content, schema=schema)
        return df if df.height == self._texts.len() else None

    def _extras(self, numbers: pl.Series) -> pl.DataFrame:
        """Return the values of the rows besides the fields of the model, with types that Polars infers from all rows.

        Raises:
            Malformed: the rows have so many different keys that almost all cells would be null, or a value would be
                changed because of the values of other rows.
        """
        used = {column.sources[0] for column in self._partitioner.columns if column.sources}
        texts = self._texts[numbers]
        try:
            try:
                df = read_ndjson(_joined(texts), None, ignored=used)
            except Malformed as error:
                if not isinstance(error.__cause__, PolarsError):
                    raise
                # Polars infers the types of the ignored columns too, which may have no common type.
                df = read_ndjson(_joined(without_members(texts, used)), None, ignored=used)
        except Malformed as error:
            row = None if error.line is None else int(numbers[error.line - 1])
            raise Malformed(self._format, error.reason, row=row, column=error.column) from error
        return df.select(referred(self._partitioner.unused(df.schema), df.columns))


def _joined(texts: pl.Series) -> bytes:
    content = BytesIO()
    for begin, _, lines in lines_of(texts):
        content.write(b"\n" + lines if begin else lines)
    return content.getvalue()


def _kind_for(form: ColumnCodec) -> Kind:
    """Return the likely kind of the JSON values of a column with the codec *form*."""
    if isinstance(form, PairsCodec) and isinstance(form.dtype, pl.List) and not form.values.dtype.is_nested():
        return Mapped(kind_of(form.values.dtype))
    return kind_of(form.dtype)


def _within_limits(texts: pl.Series, undecided: pl.Series) -> tuple[pl.Series, pl.DataFrame]:
    """Return the numbers of the *undecided* rows that are small enough for pydantic, and the failures of the others."""
    long = undecided.filter(texts[undecided].str.len_bytes() > ELEMENTS) if undecided.len() else undecided
    if not long.len():
        return undecided, pl.DataFrame(schema=FAILURES)
    commas = texts[long].str.replace_all(STRING, "").str.count_matches(",", literal=True)
    large = long.filter(commas > ELEMENTS)
    over_limits = pl.DataFrame([(number, None, None, "column_form", LARGE) for number in large], FAILURES, orient="row")
    return undecided.filter(~undecided.is_in(large.implode())), over_limits
