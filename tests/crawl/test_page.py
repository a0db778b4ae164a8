"""The record of a page, and the columns of a dataset of pages."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from pydantic import BaseModel, ValidationError

from greendata.crawl.fetcher import HOP_ERRORS
from greendata.crawl.page import PAGE_ERRORS, Page, PageColumns
from greendata.errors import BadChoice, NoColumnForm

pytestmark = pytest.mark.once("patched")  # no thread and no hub takes part

SHOE = "https://example.com/shoe"


class Maker(BaseModel):
    name: str


class Shoe(BaseModel):
    price: Decimal
    sizes: list[int] = []
    maker: Maker | None = None


class Boot(Shoe):
    height: float = 0.0


def test_a_page_has_every_field_and_a_dtype_for_each() -> None:
    schema = PageColumns(item=Shoe).schema
    assert list(schema) == [*Page.model_fields]
    assert schema["fetched_at"] == pl.Datetime("us", "UTC")
    assert schema["links"] == schema["redirects"] == pl.List(pl.String)
    assert schema["robots"] == schema["charset_source"] == schema["error"] == pl.String
    assert schema["item"] == pl.Struct(
        {"price": pl.Decimal(38, 18), "sizes": pl.List(pl.Int64), "maker": pl.Struct({"name": pl.String})}
    )
    assert "item" not in PageColumns().schema


def test_pages_are_rows() -> None:
    fetched = datetime(2024, 1, 2, tzinfo=UTC)
    page = Page(
        url=SHOE,
        final_url=SHOE,
        redirects=["https://example.com/a"],
        status=200,
        fetched_at=fetched,
        seconds=0.5,
        robots="allowed",
        charset="utf-8",
        charset_source="meta",
        title="ü",
        links=["https://example.com/b"],
        bytes=3,
        item=Shoe(price=Decimal("9.90"), sizes=[42], maker=Maker(name="x")),
    )
    columns = PageColumns(item=Shoe)
    frame = columns.frame([page, Page(url="https://example.com/none", error="NameNotFound")])
    assert frame.schema == columns.schema
    first, second = frame.rows(named=True)
    assert {name: value for name, value in first.items() if name != "item"} == page.model_dump(exclude={"item"})
    assert first["item"] == {"price": Decimal("9.90"), "sizes": [42], "maker": {"name": "x"}}
    assert (second["item"], second["error"], second["links"], second["status"]) == (None, "NameNotFound", [], None)
    assert columns.frame([]).schema == columns.schema


def test_columns_are_a_choice_in_their_order() -> None:
    columns = PageColumns(["status", "item", "url"], Shoe)
    assert list(columns.schema) == ["status", "item", "url"]
    assert columns.frame([Page(url=SHOE, status=404)]).rows() == [(404, None, SHOE)]
    with pytest.raises(BadChoice, match=r"columns must be 'url', .* or 'item', got 'links2'"):
        PageColumns(["url", "links2"], Shoe)
    with pytest.raises(BadChoice, match="got 'item'"):
        PageColumns(["item"])


def test_an_item_that_no_column_can_hold() -> None:
    class Odd(BaseModel):
        value: type

    with pytest.raises(NoColumnForm):
        PageColumns(item=Odd)


@pytest.mark.parametrize(
    ("model", "item", "reason"),
    [
        (Shoe, None, None),
        (Shoe, Shoe(price=Decimal(1)), None),
        (Shoe, Boot(price=Decimal(1)), None),
        (Shoe, Maker(name="x"), "extract returned a Maker, expected Shoe"),
        (None, Maker(name="x"), "extract returned a Maker, which its annotation does not name; write -> Maker"),
        (Shoe, Shoe.model_construct(price="x", sizes=[]), "the item does not fit its columns: "),
        (Shoe, Shoe(price=Decimal("1e30")), "the item does not fit its columns: "),
        (Shoe, Shoe(price=Decimal(1), sizes=[2**70]), "the item does not fit its columns: "),
        (Maker, Maker(name="\ud800"), "the item does not fit its columns: a lone surrogate is not Unicode text"),
    ],
)
def test_what_extract_may_return(model: type[BaseModel] | None, item: Any, reason: str | None) -> None:
    columns = PageColumns(item=model)
    error = columns.item_error(item)
    if reason is None:
        assert error is None
        assert columns.frame([Page(url=SHOE, item=item)]).height == 1
    else:
        assert error is not None
        assert error.startswith(reason)


def test_large_pages_become_columns_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polars holds the GIL while it copies texts: 64 of a megabyte would block the hub for 40 ms and more."""
    pages = [Page(url=f"{SHOE}/{n}", text=n * "x", links=n * [SHOE], item=Maker(name=str(n))) for n in range(40)]
    columns = PageColumns(item=Maker)
    whole = columns.frame(pages)
    made: list[int] = []
    frame = pl.DataFrame

    def counted(data: dict[str, pl.Series], **options: Any) -> pl.DataFrame:
        made.append(len(data["url"]))
        return frame(data, **options)

    monkeypatch.setattr(pl, "DataFrame", counted)
    monkeypatch.setattr("greendata.crawl.page.SLICE", 500)
    sliced = columns.frame(pages)
    assert max(made[10:]) < 5
    assert sum(made) == 40
    assert sliced.equals(whole)
    assert sliced.n_chunks() == 1
    assert sliced["links"].list.len().to_list() == [*range(40)]
    assert columns.frame([]).schema == columns.schema


def test_texts_from_outside_can_be_stored() -> None:
    page = Page(url="\ud800", content_type="a\udcff", etag="\udc80", last_modified="é", message="x\ud800\n")
    row = PageColumns(["url", "content_type", "etag", "last_modified", "message"]).frame([page]).row(0)
    assert row == ("\\ud800", "a\\udcff", "\\udc80", "é", "x\\ud800\n")


def test_a_page_does_not_change_and_copies_nothing_wrong() -> None:
    page = Page(url=SHOE)
    with pytest.raises(ValidationError):
        page.status = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Page(url=SHOE, robots="perhaps")  # type: ignore[arg-type]
    assert Page.model_validate_json(page.model_dump_json()) == page
    assert Page(url=SHOE).links is not Page(url=SHOE).links


def test_every_error_of_a_hop_is_one_of_a_page() -> None:
    assert [name for name in HOP_ERRORS if name not in PAGE_ERRORS] == []
