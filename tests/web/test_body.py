"""Bodies of requests: the formats that are read, and the status of each error."""

from __future__ import annotations

import gzip
import io
from typing import Any

import polars as pl
import pytest
from flask import Flask, jsonify, request
from flask.testing import FlaskClient
from pydantic import BaseModel

from greendata.errors import BodyTooLarge
from greendata.web.flask import GreenData, body
from tests.support.frames import crowded

LIMIT = 2_000


class User(BaseModel):
    id: int
    name: str = "?"


FRAME = pl.DataFrame({"id": [1, 2], "name": ["a", "ü"]})


def written(method: str, **options: Any) -> bytes:
    file = io.BytesIO()
    getattr(FRAME, method)(file, **options)
    return file.getvalue()


BODIES = {
    "rows": ("application/json", '[{"id": 1, "name": "a"}, {"id": 2, "name": "ü"}]'.encode()),
    "columns": ("application/json; charset=utf-8", '{"id": [1, 2], "name": ["a", "ü"]}'.encode()),
    "ndjson": ("application/x-ndjson", '{"id": 1, "name": "a"}\n{"id": 2, "name": "ü"}\n'.encode()),
    "csv": ("text/csv; header=present", "id,name\n1,a\n2,ü\n".encode()),
    "arrow": ("application/vnd.apache.arrow.stream", written("write_ipc_stream")),
    "parquet": ("application/vnd.apache.parquet", written("write_parquet")),
}


@pytest.fixture
def client() -> FlaskClient:
    app = Flask("service")
    app.config["GREENDATA_MAX_BODY"] = LIMIT
    GreenData(app)
    app.add_url_rule("/", "index", lambda: jsonify(body(User).to_dicts()), methods=["POST"])
    app.add_url_rule("/small", "small", lambda: jsonify(body(User, max_bytes=10).to_dicts()), methods=["POST"])
    return app.test_client()


@pytest.mark.parametrize("kind", BODIES)
def test_every_kind_of_body_is_read(client: FlaskClient, kind: str) -> None:
    content_type, data = BODIES[kind]
    assert client.post("/", data=data, content_type=content_type).get_json() == FRAME.to_dicts()


def test_invalid_data_is_reported_row_by_row(client: FlaskClient) -> None:
    answer = client.post("/", json=[{"id": 1}, {"id": "x"}])
    assert answer.status_code == 422
    assert answer.content_type == "application/problem+json"
    problem = answer.get_json(force=True)
    (failure,) = problem["failures"]
    assert (failure["row"], failure["column"], failure["value"]) == (1, "id", "x")
    assert problem["detail"] == "1 failure"


def test_many_failures_are_counted_and_not_all_listed(client: FlaskClient) -> None:
    text = "id\n" + "x\n" * 500
    problem = client.post("/", data=text, content_type="text/csv").get_json(force=True)
    assert len(problem["failures"]) == 100
    assert problem["detail"] == "500 failures, the first 100 are listed"


@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        ("application/json", b"[{"),
        ("application/json", b"\xff\xfe"),
        ("application/x-ndjson", b'{"id": 1}\n{"id":'),
        ("application/vnd.apache.arrow.stream", b"nonsense"),
        ("application/vnd.apache.parquet", b"PAR1"),
    ],
)
def test_an_unreadable_body_is_a_bad_request(client: FlaskClient, content_type: str, data: bytes) -> None:
    answer = client.post("/", data=data, content_type=content_type)
    assert answer.status_code == 400
    assert answer.get_json(force=True)["title"] == "The body cannot be read"


@pytest.mark.parametrize("content_type", ["text/html", "application/x-www-form-urlencoded", ""])
def test_other_media_types_are_not_supported(client: FlaskClient, content_type: str) -> None:
    answer = client.post("/", data=b"a=1", content_type=content_type)
    assert answer.status_code == 415
    assert "text/csv" in answer.get_json(force=True)["available"]


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("application/x-jsonlines", "ndjson"),
        ("application/jsonl", "ndjson"),
        ("application/ndjson", "ndjson"),
        ("application/vnd.api+json", "rows"),
        ("application/hal+json; charset=utf-8", "columns"),
        ("Application/CSV", "csv"),
    ],
)
def test_other_names_of_the_formats(client: FlaskClient, content_type: str, kind: str) -> None:
    assert client.post("/", data=BODIES[kind][1], content_type=content_type).get_json() == FRAME.to_dicts()


@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "gzip, gzip", "gzip, identity"])
def test_other_codings_are_not_supported(client: FlaskClient, coding: str) -> None:
    answer = client.post("/", data=b"id\n1\n", content_type="text/csv", headers={"Content-Encoding": coding})
    assert answer.status_code == 415
    assert answer.get_json(force=True)["available"] == ["identity", "gzip", "x-gzip"]


def post_gzip(client: FlaskClient, data: bytes, content_type: str = "text/csv", coding: str = "gzip") -> Any:
    return client.post("/", data=data, content_type=content_type, headers={"Content-Encoding": coding})


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("coding", ["gzip", "x-gzip", " GZIP "])
def test_a_body_may_be_compressed(client: FlaskClient, kind: str, coding: str) -> None:
    content_type, data = BODIES[kind]
    with crowded():
        answer = post_gzip(client, gzip.compress(data), content_type, coding)
        assert answer.get_json() == FRAME.to_dicts()


def test_the_app_sees_a_compressed_body_as_it_was_sent(client: FlaskClient) -> None:
    packed = gzip.compress(b"id\n1\n")
    looks = [lambda: request.get_data() == packed, lambda: body(User).height] * 2
    client.application.view_functions["index"] = lambda: jsonify([look() for look in looks])
    assert post_gzip(client, packed).get_json() == [True, 1, True, 1]


@pytest.mark.parametrize("data", [b"id\n" + b"1\n" * LIMIT, bytes(50_000_000)])
def test_a_body_that_expands_beyond_the_limit(client: FlaskClient, data: bytes) -> None:
    answer = post_gzip(client, gzip.compress(data)[: LIMIT - 1])  # 413 before anybody sees that it is cut short
    assert answer.status_code == 413
    assert answer.get_json(force=True)["limit"] == LIMIT


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (gzip.compress(b"id\n1\n")[:-1], "it is cut short"),
        (gzip.compress(b"id\n1\n") + b"2\n", "something else follows its end"),
        (gzip.compress(b"id\n1\n") * 2, "more than one gzip stream"),
        (b"id\n1\n", "incorrect header check"),
        (b"", "it is cut short"),
    ],
)
def test_broken_gzip_is_a_bad_request(client: FlaskClient, data: bytes, reason: str) -> None:
    answer = post_gzip(client, data)
    assert answer.status_code == 400
    assert reason in answer.get_json(force=True)["detail"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_not_read_to_its_end(client: FlaskClient, chunked: bool) -> None:  # noqa: FBT001
    stream = io.BytesIO(b"id\n" + b"1\n" * 500_000)
    told: dict[str, Any] = (
        {"environ_overrides": {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}}
        if chunked
        else {"content_length": len(stream.getvalue())}
    )
    answer = client.post("/", input_stream=stream, content_type="text/csv", **told)
    assert answer.status_code == 413
    assert stream.tell() <= LIMIT + 1


def test_the_limits_of_the_call_and_of_flask_hold_too(client: FlaskClient) -> None:
    assert client.post("/small", data=b"id\n1\n2\n", content_type="text/csv").status_code == 200
    large = client.post("/small", data=b"id\n1\n2\n3\n4\n", content_type="text/csv")
    assert large.status_code == 413
    told = large.get_json(force=True)
    assert told["detail"] == "the body is larger than the limit of 10 bytes; send less"
    assert told["limit"] == 10
    client.application.config["MAX_CONTENT_LENGTH"] = 5
    assert client.post("/", data=b"id\n1\n2\n", content_type="text/csv").status_code == 413


def test_the_error_says_the_limit() -> None:
    with (
        Flask("service").test_request_context("/", method="POST", data=b"id\n1\n", content_type="text/csv"),
        pytest.raises(BodyTooLarge) as caught,
    ):
        body(User, max_bytes=3)
    assert caught.value.limit == 3
