"""Where a pipeline meets Polars: rows become frames, and a stream of frames becomes one Parquet file."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, overload

import polars as pl

from greendata.errors import NotAFrame
from greendata.formats.frame_file import ParquetFile, discard
from greendata.hub.checks import checked_count
from greendata.pipelines.element import Item
from greendata.pipelines.operators import as_stage, in_order
from greendata.pipelines.order import unmarked
from greendata.pipelines.run import Flow, Run, Windows
from greendata.pipelines.stage import Partial, Stage
from greendata.pool import pool

__all__ = ("Batch", "ParquetSink", "Written", "batch", "sink_parquet")

FRAMES_WAITING = 2  # frames before and behind a stage of frames: one to work on, one to come


class Written(NamedTuple):
    """What a sink has written.

    Attributes:
        path: the file.
        rows: in all.
        row_groups: in all; 0 if there was no frame, and then no file was made.
        size: of the file, in bytes.
    """

    path: Path
    rows: int
    row_groups: int
    size: int


@overload
def batch(source: Iterable[Any], *, rows: int, schema: Any = ...) -> Stage[pl.DataFrame]: ...
@overload
def batch(source: None = ..., *, rows: int, schema: Any = ...) -> Partial[Stage[pl.DataFrame]]: ...
def batch(source: Any = None, *, rows: int, schema: Any = None) -> Any:
    """Frames of *rows* rows each, the last one with what is left.

    The elements are dicts, or tuples in the order of the columns. A frame is made in the pool; some 10 000 rows of
    Python objects hold the GIL, and so the hub, for a few milliseconds.

    Args:
        source: a stage or an iterable; without it the outcome is a `Partial`.
        rows: rows in a frame.
        schema: as `polars.DataFrame` takes it. Without it each frame's is inferred from all of its rows, and they
            may differ. With it an empty source gives one empty frame.

    Raises:
        BadArgument, NotIterable: the arguments cannot be used.

    Example:
        >>> [frame.shape for frame in batch(({"a": n} for n in range(5)), rows=2)]
        [(2, 1), (2, 1), (1, 1)]
    """
    checked_count("rows", rows)
    if source is None:
        return Partial(lambda given: Batch(as_stage(given, rows), rows, schema))
    return Batch(as_stage(source, rows), rows, schema)


@overload
def sink_parquet(path: str | os.PathLike[str], source: Iterable[pl.DataFrame], **options: Any) -> Stage[Written]: ...
@overload
def sink_parquet(path: str | os.PathLike[str], source: None = ..., **options: Any) -> Partial[Stage[Written]]: ...
def sink_parquet(path: str | os.PathLike[str], source: Any = None, **options: Any) -> Any:
    """One Parquet file of all frames: each is written as it comes, as row groups of its own.

    The file appears at *path* when it is complete; whatever ends the pipeline before leaves what was there. The
    stage gives one element, a `Written`.

    Args:
        path: the file; its folder has to be there.
        source: a stage of frames or an iterable; without it the outcome is a `Partial`.
        options: as `polars.DataFrame.write_parquet` takes them, ``compression=`` for one.

    Raises:
        NotIterable, TypeError: the arguments cannot be used.

    Example:
        >>> import tempfile
        >>> frames = [pl.DataFrame({"a": [1, 2]}), pl.DataFrame({"a": [3]})]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (frames | sink_parquet(folder + "/a.parquet")).get()[0].row_groups
        2
    """
    inspect.signature(pl.DataFrame.write_parquet).bind(None, None, **options)
    if source is None:
        return Partial(lambda given: ParquetSink(as_stage(given, FRAMES_WAITING), Path(path), options))
    return ParquetSink(as_stage(source, FRAMES_WAITING), Path(path), options)


class Batch(Stage[pl.DataFrame]):
    """Rows gathered into frames."""

    def __init__(self, source: Stage[Any], rows: int, schema: Any) -> None:
        super().__init__("batch", FRAMES_WAITING, (source,))
        self._rows = rows
        self._schema = schema

    def flow(self, run: Run, windows: Windows) -> Flow:
        """The frames, of rows in order where order is asked for."""
        size = run.reach(self)
        items = unmarked(in_order(run, self.sources[0], size)) if size else run.pull(self.sources[0], []).items
        return Flow(self._gathered(items), True)

    def _gathered(self, items: Iterator[Item]) -> Iterator[Item]:
        rows: list[Any] = []
        index = 0
        for _, value in items:
            rows.append(value)
            if len(rows) >= self._rows:
                yield index, pool.call(self._frame_of, rows)
                rows = []
                index += 1
        if rows or (index == 0 and self._schema is not None):
            yield index, pool.call(self._frame_of, rows)

    def _frame_of(self, rows: list[Any]) -> pl.DataFrame:
        return pl.DataFrame(rows, schema=self._schema, orient="row", infer_schema_length=None)


class ParquetSink(Stage[Written]):
    """A stream of frames on its way into one file."""

    def __init__(self, source: Stage[Any], path: Path, options: dict[str, Any]) -> None:
        super().__init__(f"sink_parquet({path.name})", FRAMES_WAITING, (source,))
        self._path = path
        self._options = options

    def flow(self, run: Run, windows: Windows) -> Flow:
        """One element, when the file is there."""
        size = run.reach(self)
        items = unmarked(in_order(run, self.sources[0], size)) if size else run.pull(self.sources[0], []).items
        return Flow(run.keep(self._write(items)), True)

    def _write(self, items: Iterator[Item]) -> Iterator[Item]:
        file = ParquetFile(self._path, self._options)
        try:
            for _, frame in items:
                if not isinstance(frame, pl.DataFrame):
                    raise NotAFrame(frame, "DataFrame")
                pool.call(file.append, frame)
            size = pool.call(file.finish)
        except BaseException:
            discard(file)
            raise
        yield 0, Written(self._path, file.rows, file.row_groups, size)
