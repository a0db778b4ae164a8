"""Scan files as lazy frames with the types that a model expects. These functions read files: call them on workers.

Polars guesses the types of CSV columns and the keys of NDJSON rows from the first lines of a file. The model overrides
these guesses where it knows more. Errors of Polars about a bad file are replaced by errors with the path that the
caller gave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from glob import escape
from typing import Any, Literal, NamedTuple

import polars as pl
from polars.exceptions import PolarsError
from pydantic import BaseModel

from greendata.errors import FileMissing, UnreadableFile
from greendata.hub.contexts import contextmanager
from greendata.schema.column_names import column
from greendata.schema.fields import columns_of
from greendata.schema.models import schema_of
from greendata.typed.confinement import Sources, StrPath, resolve_sources
from greendata.typed.ndjson_scan import SCAN_LINES_OPTIONS, scan_inferred, scan_json_lines, scan_validated
from greendata.typed.plan import message_without_plan
from greendata.validation.column_validation import runs_code

__all__ = ("Scan", "csv_options", "csv_to_model", "duplicate_name", "scan", "translating_file_errors")

Kind = Literal["parquet", "csv", "ndjson", "ipc"]

# Options of `polars.scan_ndjson` for inference and memory. They have no effect on rows that are validated one by one.
_INFERENCE_OPTIONS = frozenset({"batch_size", "infer_schema_length", "low_memory"})

_DUPLICATED = "_duplicated_"  # Polars renames the second column "a" to "a_duplicated_0"
# The options of `polars.scan_csv` that decide how the header is found and split.
_FORM = (
    "comment_prefix",
    "encoding",
    "eol_char",
    "glob",
    "quote_char",
    "separator",
    "skip_lines",
    "skip_rows",
    "storage_options",
)


class Scan(NamedTuple):
    """The result of a scan.

    Attributes:
        frame: the lazy frame.
        schema: the columns of the frame.
        sources: the files, which have to be checked before each run.
        texts: the rows as text, see `greendata.typed.ndjson_rows`, or None for other formats and options.
    """

    frame: pl.LazyFrame
    schema: pl.Schema
    sources: Sources
    texts: pl.LazyFrame | None = None


def scan(kind: Kind, path: StrPath, root: StrPath | None, model: type[BaseModel], options: dict[str, Any]) -> Scan:
    """Return a lazy frame over *path*. Only the schema is read now.

    Args:
        kind: the suffix of the ``polars.scan_*`` function to use.
        path: see `greendata.typed.confinement.resolve_sources`.
        root: see `greendata.typed.confinement.resolve_sources`.
        model: the model of the rows.
        options: keyword arguments of ``polars.scan_*``, which take precedence over the model.

    Raises:
        PathRefused, FileMissing, BadArgument: *path* or *root* is invalid.
        UnreadableFile: the file has another format, or is truncated.
    """
    found = resolve_sources(path, root)
    if found.root is None:
        paths: Any = path
    elif kind == "ndjson":  # scan_ndjson has no glob=False
        paths = [escape(path) for path in found.paths]
    else:
        paths, options = list(found.paths), {**options, "glob": False}
    with translating_file_errors((found,)):
        if kind == "ndjson" and options.keys() <= SCAN_LINES_OPTIONS | _INFERENCE_OPTIONS:
            lines = scan_json_lines(paths, **{name: options[name] for name in options.keys() & SCAN_LINES_OPTIONS})
            if _can_validate_while_reading(model):
                return Scan(scan_validated(lines, found, model), schema_of(model), found, lines)
            return Scan(*scan_inferred(lines, found, model), found, lines)
        if kind == "csv":
            options = csv_options(model, options)
        lf: pl.LazyFrame = getattr(pl, f"scan_{kind}")(paths, **options)
        schema = lf.collect_schema()
        if kind == "csv":
            if (twice := duplicate_name(schema, lambda: _header(paths, options))) is not None:
                raise UnreadableFile([found.shown], f"the name {twice!r} stands for more than one column")
            lf = csv_to_model(model, lf, options)
            schema = lf.collect_schema()
        if kind == "ndjson" and not options.keys() & {"schema", "schema_overrides", "infer_schema_length"}:
            lf = pl.scan_ndjson(paths, **options, **_ndjson_knowledge(schema, model))
            schema = lf.collect_schema()
    return Scan(lf, schema, found)


@contextmanager
def translating_file_errors(files: tuple[Sources, ...]) -> Iterator[None]:
    """Replace errors of Polars in the block by errors about *files*. Without files, pass them on unchanged.

    Raises:
        UnreadableFile, FileMissing: instead of an error of Polars, which is their cause.
    """
    try:
        yield
    except PolarsError as error:
        if not files:
            raise
        raise UnreadableFile([file.shown for file in files], _cleaned(files)(message_without_plan(error))) from error
    except FileNotFoundError as error:
        if not files or isinstance(error, FileMissing):
            raise
        raise FileMissing(", ".join(file.shown for file in files)) from error


def _cleaned(files: tuple[Sources, ...]) -> Callable[[str], str]:
    def clean(text: str) -> str:
        for file in files:
            text = file.cleaned(text)
        return text

    return clean


def _can_validate_while_reading(model: type[BaseModel]) -> bool:
    """Return True if rows can be validated while they are read, even though they are validated again when taken."""
    return model.model_config.get("extra") != "allow" and not runs_code(model)


def csv_options(model: type[BaseModel], options: dict[str, Any]) -> dict[str, Any]:
    """Return *options* of ``polars.scan_csv`` with the types of columns that *model* knows. *options* take precedence.

    Integers and booleans are read in the type of the model. All else is read as text, so that the validation sees the
    original text.

    Example:
        >>> class User(BaseModel):
        ...     age: int
        >>> csv_options(User, {"separator": ";"})
        {'schema_overrides': {'age': Int64}, 'separator': ';'}
    """
    types = {_raw(name): dtype if _is_read(dtype) else pl.String() for name, dtype in _wanted(model).items()}
    return {"schema_overrides": types, **options}


def csv_to_model(model: type[BaseModel], lf: pl.LazyFrame, options: dict[str, Any]) -> pl.LazyFrame:
    """Return the CSV rows of *lf* with the names, floats, decimals and binary values that *model* expects.

    Args:
        options: the options that *lf* was read with, see `csv_options`.

    Example:
        >>> class Item(BaseModel):
        ...     price: float
        >>> csv_to_model(Item, pl.LazyFrame({"price": ["1.5", "1e5", None]}), {}).collect()["price"].to_list()
        [1.5, 100000.0, None]
    """
    if not options.keys() & {"has_header", "new_columns", "quote_char", "with_column_names"}:
        names = lf.collect_schema()
        lf = lf.rename({raw: raw.replace('""', '"') for raw in names if '""' in raw})  # see `_raw`
    schema = lf.collect_schema()
    changed = []
    for name, dtype in _wanted(model).items():
        if schema.get(name) != pl.String:
            continue
        text = column(name)
        if options.get("decimal_comma") and (dtype.is_float() or dtype.is_decimal()):
            point = text.str.replace_all(".", "..", literal=True)  # so that it is not a number
            text = point.str.replace(",", ".", literal=True)
        if dtype == pl.Binary:  # base64, see `greendata.formats.text_encode`
            text = text.str.decode("base64")
        elif dtype == pl.Float64:
            text = _as_float(text)
        changed.append(text)
    return lf.with_columns(changed)


def duplicate_name(schema: pl.Schema, header: Callable[[], list[str | None]]) -> str | None:
    """Return a name that several columns have, which Polars renames, or None.

    Args:
        schema: the schema that Polars returns.
        header: a function that returns the names as the file has them.

    Example:
        >>> duplicate_name(pl.Schema({"a": pl.Int64, "a_duplicated_0": pl.Int64}), lambda: ["a", "a"])
        'a'
    """
    parts = (name.rpartition(_DUPLICATED) for name in schema)
    if not any(mark and first in schema for first, mark, _ in parts):
        return None
    return next((name or "" for name, count in Counter(header()).items() if count > 1), None)


def _header(paths: Any, options: dict[str, Any]) -> list[str | None]:
    """Return the first record of a file without conversion."""
    form = {name: options[name] for name in _FORM if name in options}
    head = pl.scan_csv(paths, **form, has_header=False, infer_schema=False, n_rows=1)
    return [*head.collect(engine=pl.InMemoryEngine()).row(0)]


def _wanted(model: type[BaseModel]) -> dict[str, pl.DataType]:
    """Return the dtypes of the model's columns, by each of the names that a column may have."""
    return {source: column.codec.dtype for column in columns_of(model) for source in column.sources}


def _as_float(text: pl.Expr) -> pl.Expr:
    """Parse *text* as floats. Digits that would overflow to infinity are an error."""
    number = text.str.strip_chars(" \t")
    number = pl.when(number != "").then(number)
    is_lost = number.cast(pl.Float64, strict=False).is_infinite() & number.str.contains("[0-9]")
    return pl.when(is_lost).then(number + pl.lit(" would be infinite")).otherwise(number).cast(pl.Float64)


def _raw(name: str) -> str:
    """Return Polars' name of the column: it does not unescape doubled quotes in a header."""
    return name.replace('"', '""')


def _is_read(dtype: pl.DataType) -> bool:
    return dtype.is_integer() or isinstance(dtype, pl.Boolean)


def _ndjson_knowledge(schema: pl.Schema, model: type[BaseModel]) -> dict[str, Any]:
    """Return options that infer from all lines if keys may appear late, and that keep numbers exact for the model."""
    wanted = schema_of(model)
    numbers: dict[str, pl.DataType] = {}
    for name, dtype in wanted.items():
        if dtype.is_float() and name in schema and schema[name].is_integer():
            numbers[name] = dtype
        elif dtype.is_integer() and name in schema and schema[name].is_float():
            numbers[name] = pl.Int64()  # 1.0 is then an error, which is clearer than another integer
        elif isinstance(dtype, pl.Decimal) and name in schema and schema[name].is_float():
            numbers[name] = pl.String()
    late = {"infer_schema_length": None} if wanted.keys() - schema.keys() else {}
    return {"schema_overrides": numbers, **late}
