"""`ModelStream`: the rows of a query in validated batches while the query runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import polars as pl
from pydantic import BaseModel

from greendata.errors import BatchesBusy, FrameInvalid
from greendata.hub.closing import Closing
from greendata.pool import pool
from greendata.query.batches import Batches
from greendata.typed.confinement import Sources
from greendata.typed.instances import PlanRows
from greendata.typed.ndjson_rows import NdjsonRows
from greendata.typed.scans import translating_file_errors

__all__ = ("ModelStream",)

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


class ModelStream(Closing, Generic[M]):
    """An iterator over DataFrames of valid rows, and a context manager that stops the query.

    Memory holds the current batch, the next one, and Polars' own buffer. Leaving the block, `close`, an error, the end
    and dropping the object stop the query. One consumer may use it at a time. `Frame.stream` returns one.

    Args:
        batches: the rows before the validation.
        rows: the object that validates them.
        sources: the files that are read, for error messages.

    Example:
        >>> from greendata.typed.frame import Frame
        >>> class User(BaseModel):
        ...     name: str
        >>> with Frame[User].from_columns({"name": ["Ann", "Bob", "Eve"]}).stream(batch_size=2) as stream:
        ...     [batch.height for batch in stream]
        [2, 1]
    """

    def __init__(
        self, batches: Batches[pl.DataFrame], rows: PlanRows[M] | NdjsonRows[M], *, sources: tuple[Sources, ...] = ()
    ) -> None:
        self._batches = batches
        self._rows = rows
        self._sources = sources
        self._count = 0  # rows returned so far; only the consumer's thread uses it
        self._busy = False  # True while a batch is fetched; consumers test and set it without a call between

    def __iter__(self) -> ModelStream[M]:
        return self

    def __next__(self) -> pl.DataFrame:
        """Return the next batch.

        Raises:
            FrameInvalid: rows are invalid; their numbers count from the first row of the stream.
            UnreadableFile, FileMissing, PathRefused: a file cannot be read, or has changed.
            BatchesBusy: another greenlet is waiting for a batch.
        """
        return self._take(self._rows.frame)

    def models(self) -> Iterator[list[M]]:
        """Yield the batches as lists of models, built in slices on the hub. Raises the errors of `__next__`.

        Example:
            >>> from greendata.typed.frame import Frame
            >>> class User(BaseModel):
            ...     name: str
            >>> with Frame[User].from_columns({"name": ["Ann", "Bob", "Eve"]}).stream(batch_size=2) as stream:
            ...     next(stream.models())
            [User(name='Ann'), User(name='Bob')]
        """
        while True:
            try:
                models = self._take(self._rows.models)
            except StopIteration:
                return
            yield models

    def close(self) -> None:
        """Stop the query. Never blocks. Safe from any thread."""
        self._batches.close()

    def __repr__(self) -> str:
        return f"<ModelStream of {self._rows.model.__name__} after {self._count} rows: {self._batches!r}>"

    def _take(self, use: Callable[[pl.DataFrame], T]) -> T:
        if self._busy:
            raise BatchesBusy
        self._busy = True
        try:
            with translating_file_errors(self._sources):
                batch = next(self._batches)
            used = use(batch)
        except FrameInvalid as error:
            self.close()
            failures = error.failures.with_columns(pl.col("row") + self._count)
            raise pool.call(
                FrameInvalid.with_text, error.model, self._count + error.rows, failures, error.hints
            ) from error
        except BaseException:  # also at the end of the stream
            self.close()
            raise
        finally:
            self._busy = False
        self._count += batch.height
        return used
