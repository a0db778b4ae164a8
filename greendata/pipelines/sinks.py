"""The stages that use Polars: collect rows into frames, and write a stream of frames to one Parquet file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import polars as pl

from greendata.errors import BadArgument, FileMissing, NotAFrame
from greendata.errors.notes import note, shortened
from greendata.formats.frame_file import ParquetFile, discard
from greendata.hub.checks import checked_count, naming_arguments
from greendata.hub.result import Result
from greendata.pipelines.element import Item
from greendata.pipelines.operators import as_stage, in_order
from greendata.pipelines.order import without_placeholders
from greendata.pipelines.run import Flow, Run, Windows
from greendata.pipelines.stage import Partial, Stage
from greendata.pool import pool
from greendata.query.options import options_for

if TYPE_CHECKING:
    from greendata.internals.polars import ArrowSchemaExportable, ParquetCompression, ParquetMetadata, SchemaDefinition

__all__ = ("Batch", "ParquetSink", "Written", "batch", "sink_parquet")

FRAMES_WAITING = 2  # frames that wait before and after a stage of frames: one in progress and the next
_NOT_ROWS = (pl.DataFrame, pl.LazyFrame, Result)  # Polars would put these whole into a column of objects
_ROW = "one row, such as a dict (frames need no batch; call get() on a result)"


class Written(NamedTuple):
    """The result of a sink.

    Attributes:
        path: the file.
        rows: the total number of rows.
        row_groups: the total number of row groups; 0 if there was no frame, and then no file was created.
        size: the size of the file in bytes.
    """

    path: Path
    rows: int
    row_groups: int
    size: int


@overload
def batch(source: Iterable[Any], *, rows: int, schema: SchemaDefinition | None = None) -> Stage[pl.DataFrame]: ...
@overload
def batch(
    source: None = None, *, rows: int, schema: SchemaDefinition | None = None
) -> Partial[Stage[pl.DataFrame]]: ...
@naming_arguments
def batch(source: Any = None, *, rows: int, schema: SchemaDefinition | None = None) -> Any:
    """Collect elements into frames of *rows* rows each; the last frame may be shorter.

    The elements are dicts, or tuples in the order of the columns. A frame is made in the pool. Building
    one from about 10 000 rows of Python objects holds the GIL, and so blocks the hub, for a few milliseconds.

    Args:
        source: a stage or an iterable; without it a `Partial` is returned.
        rows: the number of rows in a frame.
        schema: as for `polars.DataFrame`. Without it the schema of each frame is inferred from all of its rows, so the
            schemas may differ. With it an empty source produces one empty frame.

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
def sink_parquet(
    path: str | os.PathLike[str],
    source: Iterable[pl.DataFrame],
    *,
    compression: ParquetCompression = "zstd",
    compression_level: int | None = None,
    statistics: bool | str | dict[str, bool] = True,
    row_group_size: int | None = None,
    data_page_size: int | None = None,
    use_pyarrow: bool = False,
    pyarrow_options: dict[str, Any] | None = None,
    metadata: ParquetMetadata | None = None,
    arrow_schema: ArrowSchemaExportable | None = None,
) -> Stage[Written]: ...
@overload
def sink_parquet(
    path: str | os.PathLike[str],
    source: None = None,
    *,
    compression: ParquetCompression = "zstd",
    compression_level: int | None = None,
    statistics: bool | str | dict[str, bool] = True,
    row_group_size: int | None = None,
    data_page_size: int | None = None,
    use_pyarrow: bool = False,
    pyarrow_options: dict[str, Any] | None = None,
    metadata: ParquetMetadata | None = None,
    arrow_schema: ArrowSchemaExportable | None = None,
) -> Partial[Stage[Written]]: ...
@naming_arguments
def sink_parquet(
    path: str | os.PathLike[str],
    source: Any = None,
    *,
    compression: ParquetCompression = "zstd",
    compression_level: int | None = None,
    statistics: bool | str | dict[str, bool] = True,
    row_group_size: int | None = None,
    data_page_size: int | None = None,
    use_pyarrow: bool = False,
    pyarrow_options: dict[str, Any] | None = None,
    metadata: ParquetMetadata | None = None,
    arrow_schema: ArrowSchemaExportable | None = None,
) -> Any:
    """Write all frames to one Parquet file, each frame as it arrives and in separate row groups.

    The file appears at *path* when it is complete. If the pipeline ends before, an existing file is left unchanged.
    The stage produces one element, a `Written`.

    Args:
        path: the file; its folder must exist.
        source: a stage of frames or an iterable; without it a `Partial` is returned.
        compression: "zstd", "lz4", "snappy", "gzip", "brotli" or "uncompressed".
        compression_level: the level of *compression*; None for its default. Higher means smaller and slower.
        statistics: write statistics of columns: True, False, "full", or a dict of the kinds.
        row_group_size: the number of rows in a row group; None makes one or more of each frame.
        data_page_size: the size of a data page in bytes; None for 1 MiB.
        use_pyarrow: let pyarrow write the row groups instead of Polars.
        pyarrow_options: keyword arguments for pyarrow.
        metadata: texts for the metadata of the file, or a function that returns them.
        arrow_schema: the Arrow schema that is stored in the file; None for that of the frames.

    Raises:
        NotIterable, UnknownArgument: the arguments cannot be used.
        FileMissing: there is no folder for *path*.

    Example:
        >>> import tempfile
        >>> frames = [pl.DataFrame({"a": [1, 2]}), pl.DataFrame({"a": [3]})]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (frames | sink_parquet(folder + "/a.parquet")).get()[0].row_groups
        2
    """
    options = options_for(sink_parquet, pl.DataFrame.write_parquet, locals())
    if not (folder := Path(path).parent).is_dir():
        raise FileMissing(str(folder))
    if source is None:
        return Partial(lambda given: ParquetSink(as_stage(given, FRAMES_WAITING), Path(path), options))
    return ParquetSink(as_stage(source, FRAMES_WAITING), Path(path), options)


class Batch(Stage[pl.DataFrame]):
    """Collect rows into frames."""

    def __init__(self, source: Stage[Any], rows: int, schema: Any) -> None:
        super().__init__("batch", FRAMES_WAITING, (source,))
        self._rows = rows
        self._schema = schema

    def flow(self, run: Run, windows: Windows) -> Flow:
        """Return the frames; their rows are in order if a later stage needs order."""
        size = run.downstream_window(self)
        items = (
            without_placeholders(in_order(run, self.sources[0], size)) if size else run.pull(self.sources[0], []).items
        )
        return Flow(self._collect_frames(items), True)

    def _collect_frames(self, items: Iterator[Item]) -> Iterator[Item]:
        rows: list[Any] = []
        index = 0
        for _, value in items:
            if isinstance(value, _NOT_ROWS):
                raise BadArgument("each element of batch", value, _ROW)
            rows.append(value)
            if len(rows) >= self._rows:
                yield index, self._frame_at(index, rows)
                rows = []
                index += 1
        if rows or (index == 0 and self._schema is not None):
            yield index, self._frame_at(index, rows)

    def _frame_at(self, index: int, rows: list[Any]) -> pl.DataFrame:
        """Return the frame of that number, made of *rows*."""
        try:
            return pool.call(self._frame_of, rows)
        except Exception as error:
            begin = index * self._rows
            note(error, f"raised by batch over rows {begin} to {begin + len(rows) - 1}: {shortened(rows)}")
            raise

    def _frame_of(self, rows: list[Any]) -> pl.DataFrame:
        return pl.DataFrame(rows, schema=self._schema, orient="row", infer_schema_length=None)


class ParquetSink(Stage[Written]):
    """Write a stream of frames to one file."""

    def __init__(self, source: Stage[Any], path: Path, options: dict[str, Any]) -> None:
        super().__init__(f"sink_parquet({path.name})", FRAMES_WAITING, (source,))
        self._path = path
        self._options = options

    def flow(self, run: Run, windows: Windows) -> Flow:
        """Return one element, which is produced when the file is complete."""
        size = run.downstream_window(self)
        items = (
            without_placeholders(in_order(run, self.sources[0], size)) if size else run.pull(self.sources[0], []).items
        )
        return Flow(run.keep(self._write(items)), True)

    def _write(self, items: Iterator[Item]) -> Iterator[Item]:
        file = ParquetFile(self._path, self._options)
        try:
            for number, (_, frame) in enumerate(items):
                self._append(file, number, frame)
            size = pool.call(file.finish)
        except BaseException:
            discard(file)
            raise
        yield 0, Written(self._path, file.rows, file.row_groups, size)

    def _append(self, file: ParquetFile, number: int, frame: Any) -> None:
        try:
            if not isinstance(frame, pl.DataFrame):
                remedy = "put stages.batch(rows=10_000) before the sink: it makes frames of rows"
                raise NotAFrame(frame, "DataFrame", remedy)
            pool.call(file.append, frame)
        except Exception as error:
            note(error, f"raised by {self.label} over frame {number}: {shortened(frame)}")
            raise
