"""JSON that greendata wrote from a frame of a model is found to be that, in slices: the hub runs meanwhile."""

from __future__ import annotations

from typing import get_args

import gevent
import polars as pl
import pytest
from pydantic import BaseModel

from greendata.formats.encoders import encode
from greendata.formats.format import Format
from greendata.formats.json.stored import SEARCHED, has_mark, stored_frame, stored_rows
from greendata.schema.named_dtypes import MARKED_JSON
from greendata.validation.verbs import validate

ROWS = 20_000  # several pieces of text
FORMS = [form for form in get_args(Format) if "json" in form]


class Item(BaseModel):
    code: int | str


@pytest.fixture(scope="module")
def items() -> pl.DataFrame:
    return validate(pl.DataFrame({"code": [*map(str, range(ROWS - 1)), "\t7"]}), Item)


@pytest.mark.parametrize("begin", [0, 1, SEARCHED - 3, SEARCHED - 2, SEARCHED - 1, SEARCHED, 2 * SEARCHED - 3])
def test_a_mark_is_found_wherever_it_begins(begin: int) -> None:
    content = bytearray(2 * SEARCHED)
    content[begin : begin + len(MARKED_JSON)] = MARKED_JSON
    assert has_mark(bytes(content))
    assert not has_mark(bytes(content[: begin + len(MARKED_JSON) - 1]))
    assert not has_mark(bytes(content[begin + 1 :]))


def test_the_hub_runs_while_a_long_body_is_searched() -> None:
    turns: list[int] = []
    greenlet = gevent.spawn(turns.append, 1)
    assert not has_mark(bytes(1 << 26))
    assert turns == [1]
    greenlet.join()


@pytest.mark.parametrize("form", FORMS)
def test_a_long_body_is_the_frame_that_it_was_written_from(items: pl.DataFrame, form: Format) -> None:
    content = b"".join(encode(items, form))
    found = stored_frame(content, form, Item)
    assert found is not None
    assert found.equals(items)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("change", ["cut", "longer", "space at the end", "space at the beginning"])
def test_a_body_with_one_byte_more_or_less_is_not(items: pl.DataFrame, form: Format, change: str) -> None:
    content = b"".join(encode(items, form))
    changed = {
        "cut": content[:-1],
        "longer": content + b"\n",
        "space at the end": content[:-2] + b" " + content[-2:],
        "space at the beginning": content.replace(b":", b": ", 1),
    }
    assert stored_frame(changed[change], form, Item) is None


def test_many_long_rows_are_the_frame_that_they_were_written_from(items: pl.DataFrame) -> None:
    texts = pl.Series(b"".join(encode(items, "ndjson")).decode().splitlines())
    found = stored_rows(texts, Item, is_rejected=False)
    assert found is not None
    assert found.equals(items)
    assert stored_rows(texts + " ", Item, is_rejected=False) is None
