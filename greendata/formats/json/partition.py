"""Rows of JSON, sifted for a model: each is judged by its own text, as by ``Model.model_validate_json(row)``.

What Polars makes of a body depends on all of its rows: an integer beside a fraction is rounded, a key that some lack is
null there. So only rows of one shape become a frame (`greendata.formats.json.shapes`), and the partitioner finds
those that are surely valid; a body of one program's rows is one shape. The others, and what no query can judge, go
through pydantic as text. One thing differs: bytes are in base64, as `encode` writes them, unless the model's
``val_json_bytes`` says otherwise.
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
from greendata.formats.json.rows import BOM, STRING, names_of_columns, read_columns, rows_of
from greendata.formats.json.shapes import Kind, Mapped, Shape, ShapeError, kind_of, shape_of
from greendata.hub.pacing import give_way
from greendata.internals.pydantic import validator_of
from greendata.schema.codecs import ColumnCodec, PairsCodec
from greendata.schema.column_names import referred
from greendata.schema.failures import FAILURES, ROW_KEY, Failures
from greendata.schema.fields import columns_of
from greendata.schema.limits import ELEMENTS
from greendata.validation.column_validation import ColumnCheck, ColumnValidator
from greendata.validation.partitioner import Part, Partitioned, Partitioner, Plan, assign, numbered
from greendata.validation.row_validation import RowValidator, Validator, take_rows

__all__ = ("InvalidJson", "JsonPartitioner", "lines_of", "partition_rows")

SHAPES = 8  # that are looked for in a body; each is a look at what is left of it
MIN_ROWS = 64  # rows that pydantic has judged before a shape is found, or a part of their own is made
TEXT_BYTES = 1 << 22  # handed over from Polars at once: a copy of half a millisecond

NONE_BAD = pl.DataFrame(schema={ROW_KEY: pl.UInt32, "column": pl.String, "value": pl.String})
LARGE = f"it takes pydantic to judge the row, and it has more than {ELEMENTS} elements"


class InvalidJson(GreenDataError):
    """A row that is no JSON. Never leaves the decoding.

    Attributes:
        row: its number.
        reason: what is wrong, with the place in the row.
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(row, reason)
        self.row = row
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _TextValidator(RowValidator):
    """pydantic's verdict on whole rows, from their texts."""

    def rows(self, places: pl.Series) -> Iterator[Any]:
        """See `Validator.rows`."""
        texts: list[str] = take_rows(self.frame.to_series(), places).to_list()
        return iter(texts)

    def valid(self, number: int, row: Any, failures: Failures) -> list[Any] | None:
        """See `Validator.valid`.

        Raises:
            InvalidJson: the row is none.
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
    """pydantic's verdict on some columns of rows of one shape, from the texts of their values."""

    def _values(self, field: ColumnCheck, places: pl.Series) -> Iterator[Any]:
        if field.source is None:
            return ColumnValidator._values(self, field, places)
        return iter(take_rows(self.frame[field.source], places).to_list())


def partition_rows(content: bytes, format: Format, model: type[BaseModel]) -> Partitioned:
    """The rows in *content*, sifted. Call on a worker.

    Args:
        format: json or ndjson.

    Raises:
        Malformed: it is none of that, as far as it was looked at.
        NotAModel, NoColumnForm, DuplicateColumn: see `schema_of`.

    Example:
        >>> class User(BaseModel):
        ...     age: int = 7
        >>> partition_rows(b'[{"age": 1}, {}]', "json", User).height
        2
    """
    partitioner = JsonPartitioner(model)
    if format == "json" and not _is_array(content) and (found := _columns_at_once(content, partitioner)) is not None:
        return found
    texts = rows_of(content, format)
    reject_sparse(texts.len(), len(partitioner.shape_partitioner.columns), len(content), format=format)
    return _Partitioning(
        partitioner, texts, content if format == "ndjson" or _is_array(content) else None, format
    ).partitioned()


def _is_array(content: bytes) -> bool:
    return content[first_byte(content) :][:1] == b"["


def _columns_at_once(content: bytes, partitioner: JsonPartitioner) -> Partitioned | None:
    """The rows of an object of columns, if all values of each are of one kind and all rows are sure; else None."""
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
    parts, undecided, bad = partitioner.shape_partitioner.partition(df, plan, all_invalid=False)
    if undecided.len():
        return None
    no_texts = pl.DataFrame({"": []}, {"": pl.String})
    validator = _TextValidator(no_texts, partitioner.shape_partitioner.columns, partitioner.check)
    asked = assign([(0, undecided, undecided)])
    return Partitioned(df.height, parts, (validator,), asked, bad, pl.DataFrame(schema=FAILURES), None)


def lines_of(texts: pl.Series) -> Iterator[tuple[int, int, bytes]]:
    r"""*texts* as lines of NDJSON, some megabytes at once: the first of these texts, the one behind them, their lines.

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
        give_way()
        begin = end


class JsonPartitioner:
    """What sifts the texts of rows for a model. Call it on a worker.

    Attributes:
        shape_partitioner: of the rows that have one shape.
        check: a row's instance of the model, from its text; or a ValidationError.

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
        """The rows of these *texts*, sifted."""
        return _Partitioning(self, texts, None, "ndjson").partitioned()


class _Partitioning:
    """The rows of a body, while it is found out what becomes of them."""

    def __init__(self, partitioner: JsonPartitioner, texts: pl.Series, content: bytes | None, format: Format) -> None:
        self._content = content
        self._format = format
        self._texts = texts
        self._partitioner = partitioner.shape_partitioner
        self._whole = _TextValidator(texts.to_frame(), partitioner.shape_partitioner.columns, partitioner.check)
        self._validators: list[Validator] = [self._whole]
        self._parts: list[Part] = []
        self._apart: list[tuple[int, pl.Series, pl.Series]] = []  # as `assign` takes it
        self._undecided: list[pl.Series] = []
        self._bad: list[pl.DataFrame] = [NONE_BAD]

    def partitioned(self) -> Partitioned:
        """What becomes of them."""
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
            except (ShapeError, PolarsError):  # Polars has a bound for patterns, too
                is_alike = pl.Series([False])
            if not is_alike[0]:  # one of its values is beyond what a shape admits
                self._undecided.append(left.head(1))
                left = left.slice(1)
                continue
            alike = left.filter(is_alike)
            if self._parts and alike.len() < MIN_ROWS:
                self._undecided.append(alike)
            else:
                self._sort(alike, shape)
            left = left.filter(~is_alike)
            known = Shape(tuple({**dict(known.fields), **dict(shape.fields)}.items()))
        undecided, beyond = _askable(self._texts, pl.concat([*self._undecided, left]).sort())
        bad = pl.concat(self._bad)
        return Partitioned(
            height=self._texts.len(),
            parts=self._parts,
            validators=tuple(self._validators),
            assigned=assign([(0, undecided, undecided), *self._apart], bad[ROW_KEY]),
            rejected=bad,
            over_limits=beyond,
            extras=self._extras if self._partitioner.model.model_config.get("extra") == "allow" else None,
        )

    def _sort(self, numbers: pl.Series, shape: Shape) -> None:
        """Find a place for the rows of these *numbers*, which have one shape."""
        dtypes = {key: kind.dtype or pl.Null() for key, kind in shape.fields}
        plan = self._partitioner.plan(dtypes)
        df = None if plan is None else self._read_shape(numbers, shape)
        if plan is None or df is None:
            self._undecided.append(numbers)
            return
        parts, undecided, bad = self._partitioner.partition(df, plan, all_invalid=self._partitioner.all_invalid(dtypes))
        validator = None
        if plan.checks:
            validator = len(self._validators)
            self._validators.append(self._validator(numbers, shape, plan))
        for part in parts:
            sure = numbered(part.accepted, numbers)
            if validator is not None:
                self._apart.append((validator, sure[ROW_KEY], part.accepted[ROW_KEY]))
            self._parts.append(Part(sure, part.all_invalid, validator))
        self._undecided.append(numbers[undecided])
        self._bad.append(numbered(bad, numbers))

    def _validator(self, numbers: pl.Series, shape: Shape, plan: Plan) -> _TokenValidator:
        """What judges the columns apart, by the texts of their values."""
        sources = {field.source for field in plan.checks if field.source is not None}
        tokens = self._tokens(numbers, shape, sources)
        return _TokenValidator(tokens, [field.column for field in plan.checks], plan.checks, self._whole)

    def _read_shape(self, numbers: pl.Series, shape: Shape) -> pl.DataFrame | None:
        """Rows of one shape as a frame; None if Polars does not read them after all."""
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
        """The texts of the values of some *keys*, in rows of one shape."""
        tokens = self._texts[numbers].str.extract_groups(shape.row(captured=keys)).struct.unnest()
        tokens.columns = [key for key, _ in shape.fields if key in keys]
        return tokens

    def _read(self, numbers: pl.Series, schema: pl.Schema) -> pl.DataFrame | None:
        """Rows of one shape as a frame; None if Polars does not read them after all."""
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
        """The body as it came, all of whose rows have one shape; None if it takes the rows one by one."""
        if self._content is None or self._content.startswith(BOM):
            return None
        reader = pl.read_json if _is_array(self._content) else pl.read_ndjson
        df = reader(self._content, schema=schema)
        return df if df.height == self._texts.len() else None

    def _extras(self, numbers: pl.Series) -> pl.DataFrame:
        """What rows have besides the fields of the model, as Polars infers it from all of them.

        Raises:
            Malformed: so many rows have each so many keys of their own that almost all of it would be null; or a value
                would become another one beside those of other rows.
        """
        content = BytesIO()
        for begin, _, lines in lines_of(self._texts[numbers]):
            content.write(b"\n" + lines if begin else lines)
        used = {column.sources[0] for column in self._partitioner.columns if column.sources}
        try:
            df = read_ndjson(content.getvalue(), None, ignored=used)
        except Malformed as error:
            row = None if error.line is None else int(numbers[error.line - 1])
            raise Malformed(self._format, error.reason, row=row, column=error.column) from error
        return df.select(referred(self._partitioner.unused(df.schema), df.columns))


def _kind_for(form: ColumnCodec) -> Kind:
    """The kind of values that a column of *form* is likely to come from."""
    if isinstance(form, PairsCodec) and isinstance(form.dtype, pl.List) and not form.values.dtype.is_nested():
        return Mapped(kind_of(form.values.dtype))
    return kind_of(form.dtype)


def _askable(texts: pl.Series, undecided: pl.Series) -> tuple[pl.Series, pl.DataFrame]:
    """The numbers of *undecided* rows that pydantic can be asked about, and the failures of the others."""
    long = undecided.filter(texts[undecided].str.len_bytes() > ELEMENTS) if undecided.len() else undecided
    if not long.len():
        return undecided, pl.DataFrame(schema=FAILURES)
    commas = texts[long].str.replace_all(STRING, "").str.count_matches(",", literal=True)
    large = long.filter(commas > ELEMENTS)
    beyond = pl.DataFrame([(number, None, None, "column_form", LARGE) for number in large], FAILURES, orient="row")
    return undecided.filter(~undecided.is_in(large.implode())), beyond
