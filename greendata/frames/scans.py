"""Files as lazy frames, read the way a model wants them. All of this reads files: workers call it.

The types of a CSV column and whether an NDJSON key is there at all are guesses from a file's first lines; where the
model knows better, it is asked. What Polars says of a bad file becomes an error that names the file as its caller did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from glob import escape
from typing import Any, Literal, NamedTuple

import polars as pl
from polars.exceptions import PolarsError
from pydantic import BaseModel

from greendata.errors import FileMissing, UnreadableFile
from greendata.frames.apart import runs_code
from greendata.frames.jsonscan import scan_faithful, scan_judged, texts_in
from greendata.frames.models import schema_of
from greendata.frames.names import column
from greendata.frames.plan import first_words
from greendata.frames.roots import Sources, StrPath, sources
from greendata.hub.blocks import contextmanager

__all__ = ("Scan", "reading", "scan")

Kind = Literal["parquet", "csv", "ndjson", "ipc"]

# Options of `polars.scan_ndjson`: those of `polars.scan_lines` that say how to reach a file, and those that say how
# much of it Polars looks at and holds at once, which has no bearing on rows that are judged one by one.
_OF_LINES = frozenset({"credential_provider", "storage_options"})
_OF_INFERENCE = frozenset({"batch_size", "infer_schema_length", "low_memory"})


class Scan(NamedTuple):
    """A file as a lazy frame.

    Attributes:
        frame: the lazy frame.
        schema: its columns.
        sources: the files, to be checked before each run.
        texts: the rows as text, see `greendata.frames.textrows`; None where the columns say all that there is.
    """

    frame: pl.LazyFrame
    schema: pl.Schema
    sources: Sources
    texts: pl.LazyFrame | None = None


def scan(kind: Kind, path: StrPath, root: StrPath | None, model: type[BaseModel], options: dict[str, Any]) -> Scan:
    """The lazy frame over *path*, of which no more is read than its schema.

    Args:
        kind: which ``polars.scan_*`` reads it.
        path: see `greendata.frames.roots.sources`.
        root: likewise.
        model: what the rows are to be.
        options: those of ``polars.scan_*``; they win over what the model knows.

    Raises:
        PathRefused, FileMissing, BadArgument: the path.
        UnreadableFile: the file is not of that kind, or is cut short.
    """
    found = sources(path, root)
    if found.root is None:
        places: Any = path
    elif kind == "ndjson":  # which has no glob=False
        places = [escape(place) for place in found.paths]
    else:
        places, options = list(found.paths), {**options, "glob": False}
    with reading((found,)):
        if kind == "ndjson" and options.keys() <= _OF_LINES | _OF_INFERENCE:
            lines = texts_in(places, **{name: options[name] for name in options.keys() & _OF_LINES})
            if _can_be_judged(model):
                return Scan(scan_judged(lines, found, model), schema_of(model), found)
            return Scan(*scan_faithful(lines, found, model), found, lines)
        if kind == "csv":
            options = {"schema_overrides": _csv_types(model), **options}
        lf: pl.LazyFrame = getattr(pl, f"scan_{kind}")(places, **options)
        schema = lf.collect_schema()
        if kind == "csv" and not options.keys() & {"has_header", "new_columns", "quote_char", "with_column_names"}:
            lf = lf.rename({raw: raw.replace('""', '"') for raw in schema if '""' in raw})  # as `_raw` has it
            schema = lf.collect_schema()
        if kind == "csv":
            lf = lf.with_columns(column(name).str.decode("base64") for name in _in_base64(schema, model))
            schema = lf.collect_schema()
        if kind == "ndjson" and not options.keys() & {"schema", "schema_overrides", "infer_schema_length"}:
            lf = pl.scan_ndjson(places, **options, **_ndjson_knowledge(schema, model))
            schema = lf.collect_schema()
    return Scan(lf, schema, found)


@contextmanager
def reading(files: tuple[Sources, ...]) -> Iterator[None]:
    """Have what Polars raises in the block be about *files*; without files it is left as it is.

    Raises:
        UnreadableFile, FileMissing: in the place of Polars' errors, with them as the cause.
    """
    try:
        yield
    except PolarsError as error:
        if not files:
            raise
        raise UnreadableFile([file.shown for file in files], _cleaned(files)(first_words(error))) from error
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


def _can_be_judged(model: type[BaseModel]) -> bool:
    """True if rows may be judged while they are read: once they are taken, they are again."""
    return model.model_config.get("extra") != "allow" and not runs_code(model)


def _csv_types(model: type[BaseModel]) -> dict[str, pl.DataType]:
    """Numbers and booleans as what the model has; the rest as text, which the validation takes at its word."""
    return {_raw(name): dtype if _is_read(dtype) else pl.String() for name, dtype in schema_of(model).items()}


def _in_base64(schema: pl.Schema, model: type[BaseModel]) -> list[str]:
    """The columns of text that are binary for *model*: text has it in base64, see `greendata.frames.wire`."""
    return [name for name, dtype in schema_of(model).items() if dtype == pl.Binary and schema.get(name) == pl.String]


def _raw(name: str) -> str:
    """What Polars calls a column: it leaves a quote within quotes doubled."""
    return name.replace('"', '""')


def _is_read(dtype: pl.DataType) -> bool:
    return dtype.is_integer() or isinstance(dtype, pl.Boolean | pl.Float64)


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
