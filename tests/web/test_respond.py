"""Frames as responses: format, headers and body, and errors before the first byte."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flask import Flask, request
from flask.testing import FlaskClient

import greendata
from greendata.errors import BadChoice
from greendata.formats.format import FORMATS, MEDIA_TYPES
from greendata.web.flask import GreenData, respond

ROWS = 30_000
FRAME = pl.DataFrame({"id": range(ROWS), "name": [f"näme {number}" for number in range(ROWS)]})

READERS: dict[str, Callable[[bytes], pl.DataFrame]] = {
    "json": pl.read_json,
    "ndjson": pl.read_ndjson,
    "csv": pl.read_csv,
    "arrow": pl.read_ipc_stream,
    "parquet": pl.read_parquet,
}
SOURCES: dict[str, Callable[[], Any]] = {
    "frame": lambda: FRAME,
    "query": lambda: FRAME.lazy().filter(pl.col("id") >= 0),
    "batches": lambda: greendata.batches(FRAME.lazy(), chunk_size=7_000),
    "result": lambda: greendata.collect(FRAME.lazy()),
    "frames": lambda: iter([FRAME.head(10), FRAME.slice(10)]),
}


@pytest.fixture
def client() -> FlaskClient:
    app = Flask("service")
    GreenData(app)
    app.add_url_rule("/report", "report", lambda: respond(SOURCES[request.args.get("source", "frame")]()))
    app.add_url_rule("/report.csv", "csv", lambda: respond(FRAME))
    app.add_url_rule("/report.v2", "v2", lambda: respond(FRAME))
    app.add_url_rule("/fixed", "fixed", lambda: respond(FRAME, "parquet"))
    app.add_url_rule("/named", "named", lambda: respond(FRAME, "csv", filename=request.args["name"]))
    return app.test_client()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_every_row_of_every_source(client: FlaskClient, source: str, name: str) -> None:
    answer = client.get(f"/report?source={source}", headers={"Accept": MEDIA_TYPES[name]})  # type: ignore[index]
    assert answer.content_type == MEDIA_TYPES[name]  # type: ignore[index]
    assert READERS[name](answer.data).equals(FRAME)


def test_pyarrow_reads_the_streams(client: FlaskClient) -> None:
    stream = pa.ipc.open_stream(client.get("/report?format=arrow&source=batches").data)
    assert pl.DataFrame(stream.read_all()).equals(FRAME)
    parquet = pq.read_table(io.BytesIO(client.get("/report?format=parquet&source=batches").data))
    assert pl.DataFrame(parquet).equals(FRAME)


@pytest.mark.parametrize(
    ("path", "accept", "chosen"),
    [
        ("/report", None, "json"),
        ("/report", "*/*", "json"),
        ("/report", "text/csv", "csv"),
        ("/report", "text/csv;q=0.2, application/x-ndjson;q=0.9", "ndjson"),
        ("/report", "text/csv; charset=utf-8; header=present", "csv"),
        ("/report", "application/jsonl", "ndjson"),
        ("/report", "application/*", "json"),
        ("/report", "text/*", "csv"),
        ("/report", "application/json;q=0, */*", "ndjson"),
        ("/report", "text/html,application/xhtml+xml,*/*;q=0.8", "json"),
        ("/report?format=parquet", "text/html,*/*;q=0.8", "parquet"),
        ("/report?format=parquet", None, "parquet"),
        ("/report?format=parquet", "text/csv", "csv"),
        ("/report", "application/json, text/plain, */*", "json"),
        ("/report?format=csv", "application/json, text/plain, */*", "csv"),
        ("/report?format=csv", "application/json, text/javascript, */*; q=0.01", "csv"),
        ("/report?format=csv", "text/csv;q=0.2, application/x-ndjson;q=0.9", "csv"),
        ("/report?format=csv", "application/json, text/csv;q=0, */*", "json"),
        ("/report?format=ndjson", "application/json, application/jsonl", "ndjson"),
        ("/report.csv", "application/json, text/plain, */*", "csv"),
        ("/report.csv", "application/json, */*;q=0.1", "json"),
        ("/report.csv", "text/csv, application/json;q=0.5", "csv"),
        ("/report?excel", "text/html,*/*;q=0.8", "csv"),
        ("/report?excel=1", "application/json, text/plain, */*", "csv"),
        ("/report?excel", "application/json", "json"),
        ("/report?excel=0", "*/*", "json"),
        ("/report?excel&format=ndjson", None, "ndjson"),
        ("/report.csv", None, "csv"),
        ("/report.csv?format=arrow", None, "arrow"),
        ("/report.csv", "application/json", "json"),
        ("/report.v2", None, "json"),
        ("/fixed", "text/csv", "parquet"),
    ],
)
def test_the_client_chooses(client: FlaskClient, path: str, accept: str | None, chosen: str) -> None:
    answer = client.get(path, headers={} if accept is None else {"Accept": accept})
    assert answer.content_type == MEDIA_TYPES[chosen]  # type: ignore[index]
    assert ("Accept" in answer.headers.get("Vary", "")) == (path != "/fixed")


def test_an_unavailable_format_is_not_acceptable(client: FlaskClient) -> None:
    answer = client.get("/report", headers={"Accept": "image/png, text/html"})
    assert answer.status_code == 406
    assert answer.content_type == "application/problem+json"
    assert "application/vnd.apache.arrow.stream" in answer.get_json(force=True)["available"]
    assert client.get("/report?format=csv", headers={"Accept": "image/png"}).status_code == 406


def test_an_unknown_format_is_a_bad_request(client: FlaskClient) -> None:
    answer = client.get("/report?format=../../etc/passwd")
    assert answer.status_code == 400
    assert answer.get_json(force=True)["detail"].startswith("format: got '../../etc/passwd', expected one of json, ")


def test_a_format_of_the_service_itself_is_checked() -> None:
    with Flask("service").test_request_context(), pytest.raises(BadChoice):
        respond(FRAME, "xml")  # type: ignore[arg-type]


def test_proxies_neither_buffer_nor_compress_a_stream(client: FlaskClient) -> None:
    for name in FORMATS:
        answer = client.get(f"/report?format={name}")
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Content-Length" not in answer.headers
        assert ("no-transform" in answer.headers.get("Cache-Control", "")) == (name == "parquet")


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("report", "attachment; filename=report.csv"),
        ("report 1.csv", 'attachment; filename="report 1.csv"'),
        ("Übersicht.csv", "attachment; filename=Ubersicht.csv; filename*=UTF-8''%C3%9Cbersicht.csv"),
        ("a\r\nSet-Cookie: b=c", 'attachment; filename="a_Set-Cookie: b=c.csv"'),
        ("../../etc/passwd", "attachment; filename=_.._etc_passwd"),
        ("日本.csv", "attachment; filename=data.csv; filename*=UTF-8''%E6%97%A5%E6%9C%AC.csv"),
        (
            "\u2024\u2024\uff0fetc\uff3cpasswd.csv",
            "attachment; filename=_etc_passwd.csv; filename*=UTF-8''%E2%80%A4%E2%80%A4%EF%BC%8Fetc%EF%BC%BCpasswd.csv",
        ),
        ('a";filename="b.exe', 'attachment; filename="a\\";filename=\\"b.exe"'),
        ("", "attachment; filename=data.csv"),
        ("\x00", "attachment; filename=_.csv"),
    ],
)
def test_a_file_name_from_the_client_cannot_do_harm(client: FlaskClient, name: str, header: str) -> None:
    answer = client.get("/named", query_string={"name": name})
    assert answer.headers["Content-Disposition"] == header
    assert "Set-Cookie" not in answer.headers


def test_a_long_file_name_is_cut(client: FlaskClient) -> None:
    answer = client.get("/named", query_string={"name": "x" * 10_000})
    assert len(answer.headers["Content-Disposition"]) < 300


def test_an_early_error_has_its_proper_status() -> None:
    app = Flask("service")
    GreenData(app)

    def fails() -> Iterator[pl.DataFrame]:
        raise greendata.PoolFull(1, 1)
        yield FRAME

    app.add_url_rule("/", "index", lambda: respond(fails(), "csv"))
    app.add_url_rule("/query", "query", lambda: respond(pl.scan_parquet("/nowhere/at.all")))
    assert app.test_client().get("/").status_code == 503
    assert app.test_client().get("/query").status_code == 500


def test_spreadsheet_formulas_are_escaped_where_that_is_asked_for() -> None:
    with Flask("service").test_request_context():
        frame = pl.DataFrame({"a": ["=1+1"]})
        assert b"'=1+1" in respond(frame, "csv", escape_formulas=True).get_data()
        assert b"'=1+1" not in respond(frame, "csv").get_data()


NESTED = pl.DataFrame({"id": [1], "tags": [["a", "b"]]})
EMPTY_STRUCT = pl.DataFrame({"a": [{}]}, schema={"a": pl.Struct([])})
OBJECTS = pl.DataFrame({"a": [object()]}, schema={"a": pl.Object})
OTHERS = "application/json, application/x-ndjson, application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"


def answer_with(data: Any, path: str, accept: str | None = None) -> Any:
    app = Flask("service")
    GreenData(app)
    app.add_url_rule("/report", "report", lambda: respond(data()))
    app.add_url_rule("/report.csv", "csv", lambda: respond(data()))
    app.add_url_rule("/fixed", "fixed", lambda: respond(data(), "csv"))
    return app.test_client().get(path, headers={} if accept is None else {"Accept": accept})


ONCE = {
    "batches": lambda: greendata.batches(NESTED.lazy(), chunk_size=1),
    "frames": lambda: iter([NESTED]),
    "list": lambda: [NESTED],
}
AGAIN: dict[str, Callable[[], Any]] = {
    "frame": lambda: NESTED,
    "query": NESTED.lazy,
    "result": lambda: greendata.collect(NESTED.lazy()),
    "lazy_result": lambda: greendata.run(NESTED.lazy),
}


@pytest.mark.parametrize("source", ONCE | AGAIN)
@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("/report?format=csv", None),
        ("/report?format=csv", "*/*"),
        ("/report?format=csv", "text/html,*/*;q=0.8"),
        ("/report.csv", None),
        ("/report", "text/csv"),
        ("/report", "text/*"),
        ("/report", "text/csv, image/png;q=0.5, application/json;q=0"),
    ],
)
def test_a_format_without_a_form_for_the_columns_is_not_acceptable(source: str, path: str, accept: str | None) -> None:
    answer = answer_with((ONCE | AGAIN)[source], path, accept)
    assert answer.status_code == 406
    problem = answer.get_json(force=True)
    assert problem["available"] == [*OTHERS.split(", "), PARQUET]
    reason = "1 column that csv cannot store: tags (List(String))"
    assert problem["detail"] == f"{reason}; expected one of {OTHERS}, {PARQUET}"


@pytest.mark.parametrize("source", AGAIN)
@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("text/csv, application/json;q=0.5", "json"),
        ("text/csv, application/json;q=0.5, application/x-ndjson;q=0.7", "ndjson"),
        ("text/csv, */*;q=0.1", "json"),
        ("text/csv, application/json;q=0, application/*;q=0.1", "ndjson"),
    ],
)
def test_the_clients_next_choice_is_sent_if_the_first_cannot_hold_the_columns(
    source: str, accept: str, chosen: str
) -> None:
    answer = answer_with(AGAIN[source], "/report", accept)
    assert answer.content_type == MEDIA_TYPES[chosen]  # type: ignore[index]
    assert READERS[chosen](answer.data).equals(NESTED)


def test_every_format_that_has_no_form_says_which_have() -> None:
    answer = answer_with(lambda: EMPTY_STRUCT, "/report?format=parquet")
    assert (answer.status_code, answer.get_json(force=True)["available"]) == (406, OTHERS.split(", "))
    assert answer_with(EMPTY_STRUCT.lazy, "/report", f"{PARQUET}, {OTHERS};q=0.5").data == b'[{"a":{}}]'


@pytest.mark.parametrize("path", ["/fixed", "/report?format=json", "/report"])
def test_a_frame_that_no_format_holds_is_an_error_of_the_service(path: str) -> None:
    assert answer_with(lambda: NESTED if path == "/fixed" else OBJECTS, path).status_code == 500


def test_a_byte_order_mark_for_excel() -> None:
    with Flask("service").test_request_context():
        frame = pl.DataFrame({"größe": ["é"]})
        for escape in (False, True):
            sent = respond(frame, "csv", include_bom=True, escape_formulas=escape).get_data()
            assert sent.startswith("\ufeff".encode())
            assert sent.count("\ufeff".encode()) == 1
            assert pl.read_csv(sent).equals(frame)
            assert greendata.decode(sent, "csv", schema=frame.schema).equals(frame)
        assert respond(frame, "json", include_bom=True).get_data() == '[{"größe":"é"}]'.encode()
        two = b"".join(greendata.encode([frame, frame], "csv", include_bom=True))
        assert pl.read_csv(two).equals(pl.concat([frame, frame]))


@pytest.mark.parametrize(
    ("path", "marked"),
    [("/csv", False), ("/csv?excel", True), ("/csv?excel=false", False), ("/csv?format=csv&excel=1", True)],
)
@pytest.mark.parametrize("fixed", [None, "csv"])
def test_a_client_may_ask_for_the_mark(path: str, marked: bool, fixed: Any) -> None:  # noqa: FBT001
    app = Flask("service")
    app.add_url_rule("/csv", "csv", lambda: respond(FRAME, fixed))
    sent = app.test_client().get(path, headers={"Accept": "text/csv"}).data
    assert sent.startswith("\ufeff".encode()) is marked
    assert pl.read_csv(sent).equals(FRAME)


def test_a_head_request_and_a_dropped_response_close_the_source() -> None:
    closed: list[str] = []
    app = Flask("service")
    GreenData(app)

    def frames() -> Iterator[pl.DataFrame]:
        try:
            while True:
                yield FRAME
        finally:
            closed.append("closed")

    app.add_url_rule("/", "index", lambda: respond(frames(), "csv"))
    app.add_url_rule("/dropped", "dropped", lambda: respond(frames(), "csv") and "another answer")
    client = app.test_client()
    assert client.head("/").headers["Content-Type"].startswith("text/csv")
    assert closed == ["closed"]
    assert client.get("/dropped").text == "another answer"
    assert closed == ["closed"] * 2
    streamed = client.get("/", buffered=False)
    assert len(next(streamed.iter_encoded())) > 0
    streamed.close()
    assert closed == ["closed"] * 3
