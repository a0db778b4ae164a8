"""The rows of an NDJSON file as text, which are validated once, as JSON, when they are taken.

The rows of a validated frame would be validated a second time. Here the model's code runs once, and a strict model
accepts values in JSON that it would not accept from a column. Frames that an operation has changed get their rows from
`greendata.typed.ndjson_scan` instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import polars as pl
from pydantic import BaseModel, ValidationError

from greendata.errors import FrameInvalid
from greendata.formats.json.partition import InvalidJson, JsonPartitioner
from greendata.formats.json.stored import stored_rows
from greendata.hub.pacing import gathered
from greendata.pool import pool
from greendata.query.objects import is_small
from greendata.typed.confinement import Sources
from greendata.typed.instances import models_of
from greendata.typed.ndjson_scan import LINE, TEXT, unreadable
from greendata.validation.partitioner import Partitioned
from greendata.validation.verbs import complete_validation, validate

__all__ = ("NdjsonRows",)

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class NdjsonRows(Generic[M]):
    """Validate rows by their text. Call the methods from a greenlet: the hub runs between slices.

    Attributes:
        plan: the lazy frame of the texts and their line numbers, see `greendata.typed.ndjson_scan.scan_json_lines`.
        found: the files, for error messages.
        model: the model of the rows.
    """

    plan: pl.LazyFrame
    found: Sources
    model: type[M]

    def frame(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Validate *rows* of the plan and return them with the columns of the model.

        Raises:
            FrameInvalid: rows are invalid.
            UnreadableFile: a row is not JSON.

        Example:
            >>> class User(BaseModel):
            ...     age: int = 7
            >>> rows = pl.DataFrame({LINE: [1, 2], TEXT: ['{"age": 1.0}', "{}"]})
            >>> NdjsonRows(rows.lazy(), Sources("ages", ("ages",), None), User).frame(rows)["age"].to_list()
            [1, 7]
        """
        if (stored := self._stored(rows, is_rejected=False)) is not None:
            return validate(stored, self.model)
        try:
            height, found = complete_validation(pool.call(_partition, self.model, rows[TEXT]))
        except InvalidJson as broken:
            reason = broken.reason.partition(" at line ")[0]
            raise pool.call(unreadable, self.found, rows[LINE][broken.row], reason) from broken
        if found.failures.height:
            if (stored := self._stored(rows, is_rejected=True)) is not None:
                return validate(stored, self.model)
            raise pool.call(FrameInvalid.with_text, self.model.__name__, height, found.failures)
        return found.good

    def models(self, rows: pl.DataFrame) -> list[M]:
        """Return *rows* of the plan as instances of the model. Raises the errors of `frame`.

        Example:
            >>> class User(BaseModel):
            ...     age: int = 7
            >>> rows = pl.DataFrame({LINE: [1, 2], TEXT: ['{"age": 1.0}', "{}"]})
            >>> NdjsonRows(rows.lazy(), Sources("ages", ("ages",), None), User).models(rows)
            [User(age=1), User(age=7)]
        """
        if (stored := self._stored(rows, is_rejected=False)) is not None:
            return models_of(stored, self.model)
        check, texts = pool.call(JsonPartitioner, self.model).check, rows[TEXT]

        def models_of_slice(start: int, length: int) -> list[M]:
            return [check(text) for text in texts.slice(start, length).to_list()]

        try:
            return gathered(models_of_slice, rows.height, is_small=partial(is_small, texts))
        except ValidationError as error:
            invalid = error
        if (stored := self._stored(rows, is_rejected=True)) is not None:
            return models_of(stored, self.model)
        self.frame(rows)  # raises an error with all failures, and without pydantic's, which may show secrets
        raise invalid

    def _stored(self, rows: pl.DataFrame, *, is_rejected: bool) -> pl.DataFrame | None:
        return pool.call(partial(stored_rows, rows[TEXT], self.model, is_rejected=is_rejected))


def _partition(model: type[BaseModel], texts: pl.Series) -> Partitioned:
    return JsonPartitioner(model)(texts.alias(""))
