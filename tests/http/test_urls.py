"""Frames from URLs: what is read, what is an error, and that the temporary file is always removed."""

from __future__ import annotations

import gzip
import io
import tempfile
import zlib
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pydantic import BaseModel, create_model

import greendata
from greendata.errors import (
    AnswerBroken,
    AnswerTooLarge,
    BadArgument,
    BadTimeout,
    DeadlineExceeded,
    FetchFailed,
    FetchTimeout,
    JobCancelled,
    Malformed,
    UrlRefused,
    WrongContentType,
)
from greendata.formats.guards.parquet_footer import CELLS
from greendata.http import readers as urls
from tests.conftest import PATCHED
from tests.pool.test_queue_limit import full, is_idle
from tests.support.frames import crowded
from tests.support.gates import Gate
from tests.support.natives import until
from tests.support.rawservers import answer, drip, serving

ROWS = pl.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"]})
PARQUET = "application/vnd.apache.parquet"
LOOPBACK = ("127.0.0.1",)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, which must be empty at the end."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def parquet() -> bytes:
    file = io.BytesIO()
    ROWS.write_parquet(file)
    return file.getvalue()


def test_the_three_formats() -> None:
    pages = {
        "/a.parquet": answer(parquet(), PARQUET),
        "/a.csv": answer(ROWS.write_csv().encode(), "text/csv; charset=utf-8"),
        "/a.ndjson": answer(ROWS.write_ndjson().encode(), "application/x-ndjson"),
    }
    readers = (greendata.read_parquet_url, greendata.read_csv_url, greendata.read_ndjson_url)
    with serving(pages) as server:
        for path, read in zip(pages, readers, strict=True):
            assert_frame_equal(read(server.url + path, allow_private=LOOPBACK).get(), ROWS)
        only = greendata.read_csv_url(server.url + "/a.csv", columns=["b"], allow_private=True, label="prices")
        assert only.label == "prices"
        assert_frame_equal(only.get(), ROWS.select("b"))


class Reading(BaseModel):
    a: int
    b: str | None = "none"


def test_rows_are_validated_by_a_model() -> None:
    lines = b'{"a": 9007199254740993}\n{"a": 2.0, "b": null}\n'
    pages = {
        "/a.ndjson": answer(lines, "application/x-ndjson"),
        "/bad.ndjson": answer(lines + b'{"a": "x"}\n', "application/x-ndjson"),
        "/cut.ndjson": answer(lines + b'{"a": ', "application/x-ndjson"),
        "/a.csv": answer(b"a;b\n7;x\n", "text/csv"),
        "/a.parquet": answer(parquet(), PARQUET),
    }
    with serving(pages) as server:
        read = partial(greendata.read_ndjson_url, model=Reading, allow_private=LOOPBACK)
        assert read(server.url + "/a.ndjson").get().rows() == [(9007199254740993, "none"), (2, None)]
        with pytest.raises(greendata.FrameInvalid) as invalid:
            read(server.url + "/bad.ndjson").get()
        assert invalid.value.failures["row"].to_list() == [2]
        with pytest.raises(greendata.Malformed, match="line 3"):
            read(server.url + "/cut.ndjson").get()
        options: dict[str, Any] = {"model": Reading, "allow_private": LOOPBACK}
        assert greendata.read_csv_url(server.url + "/a.csv", separator=";", **options).get().rows() == [(7, "x")]
        assert greendata.read_parquet_url(server.url + "/a.parquet", **options).get().height == 3


def test_the_fetch_runs_in_a_greenlet_or_in_the_pool() -> None:
    """With patched sockets it runs in a greenlet of this hub, otherwise on a worker."""
    with serving({"/a.csv": answer(ROWS.write_csv().encode())}) as server:
        result = greendata.read_csv_url(server.url + "/a.csv", allow_private=True)
        result.get()
    assert result.is_native is not PATCHED


def test_the_hub_runs_while_a_server_is_slow() -> None:
    """The server responds when a greenlet releases it."""
    gate = Gate()

    def slow() -> Iterator[bytes]:
        gate()
        yield answer(ROWS.write_csv().encode())

    with serving({"/a.csv": slow}) as server:
        result = greendata.read_csv_url(server.url + "/a.csv", allow_private=True)

        def open_when_asked() -> None:
            gate.wait_arrived()
            gate.open()

        ticker = gevent.spawn(open_when_asked)
        assert result.get().height == ROWS.height
        ticker.get()


def test_native_threads_write_the_file() -> None:
    """All workers are held. The server sends the rest of the body once a job is in the queue."""
    body = b"a\n" + b"1\n" * 2_000_000
    with crowded() as gate:

        def in_two_parts() -> Iterator[bytes]:
            whole = answer(body)
            yield whole[: len(whole) // 2]
            gate()
            yield whole[len(whole) // 2 :]

        with serving({"/a.csv": in_two_parts}) as server:
            result = greendata.read_csv_url(server.url + "/a.csv", allow_private=True, timeout=20)
            assert result.get().height == 2_000_000


@pytest.mark.skipif(not PATCHED, reason="unpatched the fetch is a job itself")
def test_a_body_that_has_begun_is_read_in_a_full_pool_too() -> None:
    body = b"a\n" + b"1\n" * 2_000_000
    sent = Gate()

    def in_two_parts() -> Iterator[bytes]:
        whole = answer(body)
        yield whole[: 3 * 2**19]
        sent()
        yield whole[3 * 2**19 :]

    before = greendata.stats().done
    with serving({"/a.csv": in_two_parts}) as server:
        result = greendata.read_csv_url(server.url + "/a.csv", allow_private=True)
        until(lambda: greendata.stats().done == before + 1 and is_idle())  # 1 MB of the 1.5 is written
        with full() as gate:
            sent.open()
            until(lambda: greendata.stats().queued > 1 or result.ready())
            gate.open()
            assert result.get().height == 2_000_000


BAD: dict[str, tuple[Any, type[Exception], dict[str, Any]]] = {
    "status": (answer(status="500 Internal Server Error"), FetchFailed, {}),
    "html": (answer(b"<html>", "text/html"), WrongContentType, {}),
    "large": (answer(b"a\n" * 1_000), AnswerTooLarge, {"max_bytes": 1_000}),
    "cut": (answer(b"a\n1", length=100), AnswerBroken, {}),
    "redirect": (answer(status="302 Found", Location="http://127.0.0.2:1/"), FetchFailed, {}),
    "private": (answer(b"a\n1"), UrlRefused, {"allow_private": ["10.0.0.0/8"]}),
    "no csv": (answer(b'a\n"1,2\n3,4,5\n'), pl.exceptions.ComputeError, {}),
    "drips": (drip(answer(b"a\n", length=10**6)), TimeoutError, {"timeout": 0.3}),
}


@pytest.mark.parametrize("case", BAD)
def test_a_failed_fetch_leaves_no_file(case: str) -> None:
    page, error, options = BAD[case]
    with serving({"/a.csv": page}) as server:
        result = greendata.read_csv_url(server.url + "/a.csv", **{"allow_private": ["127.0.0.0/8"], **options})
        with pytest.raises(error):
            result.get()
        result.end().get()


def test_a_truncated_parquet_file() -> None:
    with serving({"/": answer(parquet()[:-20], PARQUET)}) as server, pytest.raises(Malformed, match="cut short"):
        greendata.read_parquet_url(server.url + "/", allow_private=True).get()


def test_a_cancelled_fetch_leaves_no_file() -> None:
    gate = Gate()

    def half() -> Iterator[bytes]:
        yield answer(b"a\n", length=10**6)
        gate()

    with serving({"/": half}) as server:
        result = greendata.read_csv_url(server.url + "/", allow_private=True)
        gate.wait_arrived()
        result.cancel()
        with pytest.raises(JobCancelled):
            result.get()
        gate.open()
        result.end().get()


def test_the_deadline_of_a_block_applies() -> None:
    with serving({"/": drip(answer(b"a\n", length=10**6))}) as server:
        with greendata.deadline(0.2):
            result = greendata.read_csv_url(server.url + "/", allow_private=True, timeout=1.0)
        with pytest.raises((DeadlineExceeded, FetchTimeout)):
            result.get()
        result.end().get()


def test_bad_arguments_are_refused_at_the_call() -> None:
    for url in ("file:///etc/passwd", "ftp://example.com/a.csv", "/etc/passwd", "a.csv"):
        with pytest.raises(UrlRefused, match="expected http, https or one of s3"):
            greendata.read_csv_url(url)
    with pytest.raises(UrlRefused, match="is not public"):
        _read_from_localhost()
    for timeout in (None, -1):
        with pytest.raises(BadTimeout):
            greendata.read_csv_url("http://example.com/a.csv", timeout=timeout)
    with pytest.raises(BadArgument, match="max_bytes must be a whole number >= 1, got -1"):
        greendata.read_csv_url("http://example.com/a.csv", max_bytes=-1)


def _read_from_localhost() -> None:
    with serving({"/": answer(b"a\n1")}) as server:
        greendata.read_csv_url(f"http://localhost:{server.port}/").get()


def test_object_stores_go_to_polars() -> None:
    """A bucket with one object on loopback: object stores are the caller's choice and are not checked."""
    body = parquet()

    def head_or_get() -> Iterator[bytes]:
        head = server.requests[-1].startswith("HEAD")
        lines = server.requests[-1].lower().split("\r\n")
        span = next((line.partition("=")[2] for line in lines if line.startswith("range:")), f"0-{len(body) - 1}")
        first, _, last = span.partition("-")
        begin, end = (int(first), int(last or len(body) - 1)) if first else (max(0, len(body) - int(last)), len(body))
        end = min(end, len(body) - 1)
        part = body if head else body[begin : end + 1]
        dated = {"Last_Modified": "Sat, 01 Feb 2020 00:00:00 GMT", "ETag": '"1"'}
        span_told = {} if head else {"Content_Range": f"bytes {begin}-{end}/{len(body)}"}
        status = "200 OK" if head else "206 Partial Content"
        found = answer(part, PARQUET, status, **dated, **span_told)
        yield found[: -len(part)] if head else found

    options = {
        "aws_endpoint_url": "",
        "aws_allow_http": "true",
        "aws_access_key_id": "ann",
        "aws_secret_access_key": "secret",
        "aws_region": "eu-central-1",
    }
    with serving({"/bucket/a.parquet": head_or_get}) as server:
        options["aws_endpoint_url"] = server.url
        result = greendata.read_parquet_url("s3://bucket/a.parquet", storage_options=options, timeout=30)
        assert_frame_equal(result.get(), ROWS)


def test_lines_in_a_store_are_read_by_their_own_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.ndjson"
    path.write_text('{"a":9007199254740993}\n\n{"a":1.5}\n{"b":null}')
    found = urls._read_store("scan_ndjson", str(path), None, {})
    assert found.rows() == [(9007199254740993, None), (Decimal("1.5"), None), (None, None)]
    path.write_text('{"a":9007199254740993}\n{"a":2.0}')
    found = urls._read_store("scan_ndjson", str(path), Reading, {"storage_options": None})
    assert found.rows() == [(9007199254740993, "none"), (2, "none")]
    path.unlink()


def claims(values: int) -> bytes:
    """Return a small Parquet file that holds *values* values."""
    file = io.BytesIO()
    pl.DataFrame({"a": pl.repeat(1, values, dtype=pl.Int8, eager=True)}).write_parquet(file)
    return file.getvalue()


def test_columns_come_from_all_rows_of_a_url() -> None:
    late = b'{"a":1}\n' * 200 + b'{"a":1,"b":5}\n'
    answers = {
        "/late": answer(late, "application/x-ndjson"),
        "/bom": answer(b"\xef\xbb\xbf" + late, "application/x-ndjson"),
        "/tsv": answer(b"a\tb\n1\t2\n", "text/tab-separated-values"),
        "/long": answer(b'{"a":[9007199254740993]}\n{"a":[1.5]}\n', "application/x-ndjson"),
    }
    with serving(answers) as server:
        for path in ("/late", "/bom"):
            df = greendata.read_ndjson_url(server.url + path, allow_private=True, timeout=10).get()
            assert df.columns == ["a", "b"]
            assert df["b"].sum() == 5
        df = greendata.read_ndjson_url(server.url + "/long", allow_private=True, timeout=10).get()
        assert df["a"].to_list() == [[9007199254740993], [Decimal("1.5")]]
        df = greendata.read_csv_url(server.url + "/tsv", separator="\t", allow_private=True, timeout=10).get()
        assert df.rows() == [(1, 2)]


MANY = {f"c{number}": pl.Int64 for number in range(100)}
HOSTILE: dict[str, tuple[Any, bytes, dict[str, Any], str]] = {
    "deep": (greendata.read_ndjson_url, b'{"a":' + b"[" * 9999 + b"]" * 9999 + b"}", {}, "64 levels"),
    "keys": (greendata.read_ndjson_url, b"".join(b'{"k%d":1}\n' % n for n in range(3000)), {}, "almost all"),
    "wide": (greendata.read_csv_url, b"a" + b",a" * 70_000, {}, "more than 65536 columns"),
    "sparse": (greendata.read_csv_url, b"a" + b";a" * 3000 + b"\n1" * 3000, {"separator": ";"}, "almost all"),
    "ends": (greendata.read_csv_url, b"a" + b",a" * 3000 + b";" + b"1;" * 3000, {"eol_char": ";"}, "almost all"),
    "absent keys": (greendata.read_ndjson_url, b"{}\n" * 30_000, {"schema": MANY}, "almost all"),
    "absent columns": (
        greendata.read_csv_url,
        b"c0\n" + b"1\n" * 30_000,
        {"schema": MANY, "missing_columns": "insert"},
        "almost all",
    ),
    "header": (greendata.read_csv_url, b"#" + b"x" * (1 << 20) + b"\na\n", {"comment_prefix": "#"}, "its header"),
    "parquet": (greendata.read_parquet_url, claims(CELLS + 1), {}, "above the limit"),
    "packed csv": (greendata.read_csv_url, zlib.compress(b"a\n1\n"), {}, "it is compressed"),
    "packed ndjson": (greendata.read_ndjson_url, zlib.compress(b'{"a":1}\n'), {}, "it is compressed"),
    "packed twice": (greendata.read_csv_url, gzip.compress(gzip.compress(b"a\n1\n")), {}, "it is compressed"),
    "cut": (greendata.read_csv_url, gzip.compress(b"a\n1\n")[:-1], {}, "not valid gzip: it is cut short"),
    "short": (greendata.read_ndjson_url, b"\x1f\x8b", {}, "not valid gzip: it is cut short"),
    "more": (greendata.read_csv_url, gzip.compress(b"a\n1\n") + b"2\n", {}, "something else follows its end"),
    "packed parquet": (greendata.read_parquet_url, gzip.compress(b"PAR1"), {}, "cut short, or not a Parquet file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_bodies_that_would_expand_too_far_are_rejected(case: str) -> None:
    read, body, options, text = HOSTILE[case]
    with serving({"/a": answer(body, "application/octet-stream")}) as server, pytest.raises(Malformed, match=text):
        read(server.url + "/a", allow_private=True, **options).get()


@pytest.mark.parametrize("options", [{}, {"columns": ["a"]}])
def test_texts_that_are_stored_once_for_many_rows(options: dict[str, Any]) -> None:
    file = io.BytesIO()
    categories = pl.Series("a", ["x" * 100_000], dtype=pl.Categorical).new_from_index(0, 4_000)
    categories.to_frame().write_parquet(file)
    pages = {"/a": answer(file.getvalue(), "application/octet-stream")}
    model = create_model("Model", a=str)
    with serving(pages) as server, pytest.raises(Malformed, match="which are repeated"):
        greendata.read_parquet_url(server.url + "/a", allow_private=True, model=model, **options).get()


def zipped(content: bytes, content_type: str = "application/gzip") -> bytes:
    return answer(gzip.compress(content[:5]) + gzip.compress(content[5:]), content_type)


def test_gzip_files_are_read_like_the_files_in_them() -> None:
    lines = ROWS.write_ndjson().encode()
    pages = {
        "/a.csv.gz": zipped(ROWS.write_csv().encode()),
        "/a.json.gz": zipped(lines),
        "/a.ndjson.gz": zipped(lines, "application/octet-stream"),
        "/large.csv.gz": answer(gzip.compress(b"a\n" + bytes(50_000_000)), "application/x-gzip"),
    }
    with serving(pages) as server:
        for options in ({}, {"low_memory": True}):
            read: dict[str, Any] = {"allow_private": LOOPBACK, **options}
            assert_frame_equal(greendata.read_csv_url(server.url + "/a.csv.gz", **read).get(), ROWS)
            for name in ("/a.json.gz", "/a.ndjson.gz"):
                assert_frame_equal(greendata.read_ndjson_url(server.url + name, **read).get(), ROWS)
        df = greendata.read_csv_url(server.url + "/a.csv.gz", model=Reading, allow_private=LOOPBACK).get()
        assert_frame_equal(df, ROWS.select("a", "b"))
        with pytest.raises(AnswerTooLarge, match="is larger than 1000000 bytes"):
            greendata.read_csv_url(server.url + "/large.csv.gz", max_bytes=1_000_000, allow_private=True).get()


def test_files_that_are_said_to_have_tabs() -> None:
    tabs, commas = b"a\tb\n1\tx,y\n", b"a,b\n1,x\ty\n"
    pages = {
        "/typed": answer(tabs, "text/tab-separated-values; charset=utf-8"),
        "/a.TSV": answer(tabs, "text/plain"),
        "/a.tsv.gz": zipped(tabs),
        "/commas.tsv": answer(commas, "text/plain"),
    }
    with serving(pages) as server:
        for path in pages:
            for model in (None, Reading):
                read = partial(greendata.read_csv_url, f"{server.url}{path}?x=1", allow_private=LOOPBACK)
                expected = (1, "x\ty") if path == "/commas.tsv" else (1, "x,y")
                assert read(model=model).get().rows() == [expected]
        df = greendata.read_csv_url(server.url + "/a.TSV", separator=";", allow_private=LOOPBACK).get()
        assert df.columns == ["a\tb"]


def test_options_of_polars_apply_to_the_size_checks_too() -> None:
    pages = {
        "/a": answer(b"# prices\n\n1;'x;y'\n" * 3),
        "/empty": answer(b""),
        "/skipped": answer(b"a,b,c,d\n" * 2 + b"a\n1\n"),
    }
    with serving(pages) as server:
        form = {"separator": ";", "comment_prefix": "#", "quote_char": "'", "has_header": False}
        assert greendata.read_csv_url(server.url + "/a", allow_private=True, **form).get().width == 2
        with pytest.raises(pl.exceptions.NoDataError):
            greendata.read_csv_url(server.url + "/empty", allow_private=True).get()
        skipped = greendata.read_csv_url(server.url + "/skipped", allow_private=True, skip_rows=2).get()
        assert skipped.to_dict(as_series=False) == {"a": [1]}
