"""Files as lazy frames, read the way a model wants them. All of this reads files: workers call it.

The types of a CSV column and whether an NDJSON key is there at all are guesses from a file's first lines; where the
model knows better, it is asked. What Polars says of a bad file becomes an error that names the file as its caller did.
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
from greendata.typed.plan import short_message
from greendata.validation.column_validation import runs_code

__all__ = ("Scan", "csv_to_model", "csv_options", "duplicate_name", "translating_file_errors", "scan")

Kind = Literal["parquet", "csv", "ndjson", "ipc"]

# Options of `polars.scan_ndjson` that say how much of a file Polars looks at and holds at once, which has no bearing on
# rows that are judged one by one.
_INFERENCE_OPTIONS = frozenset({"batch_size", "infer_schema_length", "low_memory"})

_DUPLICATED = "_duplicated_"  # what Polars puts between a name that is taken and a number
# The options of `polars.scan_csv` that say where the header is and what a column.
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
    """A file as a lazy frame.

    Attributes:
        frame: the lazy frame.
        schema: its columns.
        sources: the files, to be checked before each run.
        texts: the rows as text, see `greendata.typed.ndjson_rows`; None if the file has none.
    """

    frame: pl.LazyFrame
    schema: pl.Schema
    sources: Sources
    texts: pl.LazyFrame | None = None


def scan(kind: Kind, path: StrPath, root: StrPath | None, model: type[BaseModel], options: dict[str, Any]) -> Scan:
    """The lazy frame over *path*, of which no more is read than its schema.

    Args:
        kind: which ``polars.scan_*`` reads it.
        path: see `greendata.typed.confinement.resolve_sources`.
        root: likewise.
        model: what the rows are to be.
        options: those of ``polars.scan_*``; they win over what the model knows.

    Raises:
        PathRefused, FileMissing, BadArgument: the path.
        UnreadableFile: the file is not of that kind, or is cut short.
    """
    found = resolve_sources(path, root)
    if found.root is None:
        places: Any = path
    elif kind == "ndjson":  # which has no glob=False
        places = [escape(place) for place in found.paths]
    else:
        places, options = list(found.paths), {**options, "glob": False}
    with translating_file_errors((found,)):
        if kind == "ndjson" and options.keys() <= SCAN_LINES_OPTIONS | _INFERENCE_OPTIONS:
            lines = scan_json_lines(places, **{name: options[name] for name in options.keys() & SCAN_LINES_OPTIONS})
            if _can_validate_while_reading(model):
                return Scan(scan_validated(lines, found, model), schema_of(model), found, lines)
            return Scan(*scan_inferred(lines, found, model), found, lines)
        if kind == "csv":
            options = csv_options(model, options)
        lf: pl.LazyFrame = getattr(pl, f"scan_{kind}")(places, **options)
        schema = lf.collect_schema()
        if kind == "csv":
            if (twice := duplicate_name(schema, lambda: _header(places, options))) is not None:
                raise UnreadableFile([found.shown], f"the name {twice!r} stands for more than one column")
            lf = csv_to_model(model, lf, options)
            schema = lf.collect_schema()
        if kind == "ndjson" and not options.keys() & {"schema", "schema_overrides", "infer_schema_length"}:
            lf = pl.scan_ndjson(places, **options, **_ndjson_knowledge(schema, model))
            schema = lf.collect_schema()
    return Scan(lf, schema, found)


@contextmanager
def translating_file_errors(files: tuple[Sources, ...]) -> Iterator[None]:
    """Have what Polars raises in the block be about *files*; without files it is left as it is.

    Raises:
        UnreadableFile, FileMissing: in the place of Polars' errors, with them as the cause.
    """
    try:
        yield
    except PolarsError as error:
        if not files:
            raise
        raise UnreadableFile([file.shown for file in files], _cleaned(files)(short_message(error))) from error
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
    """True if rows may be judged while they are read: once they are taken, they are again."""
    return model.model_config.get("extra") != "allow" and not runs_code(model)


def csv_options(model: type[BaseModel], options: dict[str, Any]) -> dict[str, Any]:
    """Return *options* of ``polars.scan_csv``, which win, with what *model* knows of the types of columns.

    Integers and booleans are read as what the model has. All else is read as text, which the validation takes at its
    word.

    Example:
        >>> class User(BaseModel):
        ...     age: int
        >>> csv_options(User, {"separator": ";"})
        {'schema_overrides': {'age': Int64}, 'separator': ';'}
    """
    types = {_raw(name): dtype if _is_read(dtype) else pl.String() for name, dtype in _wanted(model).items()}
    return {"schema_overrides": types, **options}


def csv_to_model(model: type[BaseModel], lf: pl.LazyFrame, options: dict[str, Any]) -> pl.LazyFrame:
    """Return the rows of CSV in *lf* as *model* wants them: with their names, floats, decimals and binary values.

    Args:
        options: those that it was read with, see `csv_options`.

    Example:
        >>> class Item(BaseModel):
        ...     price: float
        >>> csv_to_model(Item, pl.LazyFrame({"price": ["1.5", "1e5", None]}), {}).collect()["price"].to_list()
        [1.5, 100000.0, None]
    """
    if not options.keys() & {"has_header", "new_columns", "quote_char", "with_column_names"}:
        names = lf.collect_schema()
        lf = lf.rename({raw: raw.replace('""', '"') for raw in names if '""' in raw})  # as `_raw` has it
    schema = lf.collect_schema()
    changed = []
    for name, dtype in _wanted(model).items():
        if schema.get(name) != pl.String:
            continue
        text = column(name)
        if options.get("decimal_comma") and (dtype.is_float() or dtype.is_decimal()):
            point = text.str.replace_all(".", "..", literal=True)  # which is none then
            text = point.str.replace(",", ".", literal=True)
        if dtype == pl.Binary:  # it is in base64, see `greendata.formats.text_encode`
            text = text.str.decode("base64")
        elif dtype == pl.Float64:
            text = _as_float(text)
        changed.append(text)
    return lf.with_columns(changed)


def duplicate_name(schema: pl.Schema, header: Callable[[], list[str | None]]) -> str | None:
    """Return a name that stands for more than one column, which Polars renames; None if there is none.

    Args:
        schema: what Polars makes of the header.
        header: tells the names as they stand there.

    Example:
        >>> duplicate_name(pl.Schema({"a": pl.Int64, "a_duplicated_0": pl.Int64}), lambda: ["a", "a"])
        'a'
    """
    parts = (name.rpartition(_DUPLICATED) for name in schema)
    if not any(mark and first in schema for first, mark, _ in parts):
        return None
    return next((name or "" for name, count in Counter(header()).items() if count > 1), None)


def _header(places: Any, options: dict[str, Any]) -> list[str | None]:
    """The first record of a file, as it stands there."""
    form = {name: options[name] for name in _FORM if name in options}
    head = pl.scan_csv(places, **form, has_header=False, infer_schema=False, n_rows=1)
    return [*head.collect().row(0)]


def _wanted(model: type[BaseModel]) -> dict[str, pl.DataType]:
    """The dtypes of columns, under each of the names that they may have."""
    return {source: column.codec.dtype for column in columns_of(model) for source in column.sources}


def _as_float(text: pl.Expr) -> pl.Expr:
    """The floats in *text*; an error where digits would become an infinity."""
    number = text.str.strip_chars(" \t")
    number = pl.when(number != "").then(number)
    is_lost = number.cast(pl.Float64, strict=False).is_infinite() & number.str.contains("[0-9]")
    return pl.when(is_lost).then(number + pl.lit(" would be infinite")).otherwise(number).cast(pl.Float64)


def _raw(name: str) -> str:
    """What Polars calls a column: it leaves a quote within quotes doubled."""
    return name.replace('"', '""')


def _is_read(dtype: pl.DataType) -> bool:
    return dtype.is_integer() or isinstance(dtype, pl.Boolean)


def _ndjson_knowledge(schema: pl.Schema, model: type[BaseModel]) -> dict[str, Any]:
    """Read on for keys that may come late; floats where floats are wanted, and integers where a float would round."""
    wanted = schema_of(model)
    numbers: dict[str, pl.DataType] = {}
    for name, dtype in wanted.items():
        if dtype.is_float() and name in schema and schema[name].is_integer():
            numbers[name] = dtype
        elif dtype.is_integer() and name in schema and schema[name].is_float():
            numbers[name] = pl.Int64()  # and 1.0 is none, which tells more than another integer would
        elif isinstance(dtype, pl.Decimal) and name in schema and schema[name].is_float():
            numbers[name] = pl.String()
    late = {"infer_schema_length": None} if wanted.keys() - schema.keys() else {}
    return {"schema_overrides": numbers, **late}
