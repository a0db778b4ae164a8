"""The rows of a file of NDJSON as text, each judged once and as it stands, when it is taken.

Nothing is judged a second time so, as a frame of judged rows is: code of the model runs once, and a strict one takes
from JSON what it takes from no column. What is made of rows by operations comes from `greendata.typed.ndjson_scan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import polars as pl
from pydantic import BaseModel, ValidationError

from greendata.errors import FrameInvalid
from greendata.formats.json.partition import InvalidJson, JsonPartitioner
from greendata.hub.pacing import gathered
from greendata.pool import pool
from greendata.typed.confinement import Sources
from greendata.typed.ndjson_scan import LINE, TEXT, unreadable
from greendata.validation.partitioner import Partitioned
from greendata.validation.verbs import complete_validation

__all__ = ("NdjsonRows",)

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class NdjsonRows(Generic[M]):
    """What judges rows by their texts. Call it from a greenlet: the hub turns between slices.

    Attributes:
        plan: the texts and their lines, see `greendata.typed.ndjson_scan.scan_json_lines`.
        found: the files.
        model: what the rows are to be.
    """

    plan: pl.LazyFrame
    found: Sources
    model: type[M]

    def frame(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The columns of the model for *rows* of the plan.

        Raises:
            FrameInvalid: rows that do not fit.
            UnreadableFile: a row is no JSON.

        Example:
            >>> class User(BaseModel):
            ...     age: int = 7
            >>> rows = pl.DataFrame({LINE: [1, 2], TEXT: ['{"age": 1.0}', "{}"]})
            >>> NdjsonRows(rows.lazy(), Sources("ages", ("ages",), None), User).frame(rows)["age"].to_list()
            [1, 7]
        """
        try:
            height, found = verdict(pool.call(_partition, self.model, rows[TEXT]))
        except NotJson as broken:
            reason = broken.reason.partition(" at line ")[0]
            raise pool.call(unreadable, self.found, rows[LINE][broken.row], reason) from broken
        if found.failures.height:
            raise pool.call(FrameInvalid.with_text, self.model.__name__, height, found.failures)
        return found.good

    def models(self, rows: pl.DataFrame) -> list[M]:
        """The instances of the model for *rows* of the plan; raises what `frame` does.

        Example:
            >>> class User(BaseModel):
            ...     age: int = 7
            >>> rows = pl.DataFrame({LINE: [1, 2], TEXT: ['{"age": 1.0}', "{}"]})
            >>> NdjsonRows(rows.lazy(), Sources("ages", ("ages",), None), User).models(rows)
            [User(age=1), User(age=7)]
        """
        check, texts = pool.call(JsonPartitioner, self.model).check, rows[TEXT]

        def some(start: int, length: int) -> list[M]:
            return [check(text) for text in texts.slice(start, length).to_list()]

        try:
            return gathered(some, rows.height)
        except ValidationError:
            self.frame(rows)  # tells of all failures
            raise


def _partition(model: type[BaseModel], texts: pl.Series) -> Partitioned:
    return JsonPartitioner(model)(texts.alias(""))
