"""Bodies that the app reads too, and bodies that are cut short: read completely or refused, on every server."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, jsonify, request
from flask.testing import FlaskClient
from pydantic import BaseModel

from greendata.web.flask import GreenData, body
from tests.support.servers import Server

DATA = b'[{"id": 1}, {"id": 2}]'
ROWS = [{"id": 1}, {"id": 2}]


class Item(BaseModel):
    """A row of the upload."""

    id: int


LOOKS: dict[str, Callable[[], object]] = {
    "body": lambda: body(Item).to_dicts(),
    "get_data": lambda: request.get_data().decode(),
    "data": lambda: str(request.data, "ascii"),
    "get_json": lambda: list(request.get_json()),
    "form": lambda: dict(request.form),
    "values": lambda: dict(request.values),
    "files": lambda: dict(request.files),
}
SEEN = {"body": ROWS, "get_data": DATA.decode(), "data": DATA.decode(), "get_json": ROWS}
TERMINATED = {"wsgi.input_terminated": True}
KINDS: dict[str, dict[str, Any]] = {
    "length": {"data": DATA},
    "server_ends_it": {"data": DATA, "environ_overrides": TERMINATED},
    "chunked": {"data": DATA, "environ_overrides": TERMINATED | {"HTTP_TRANSFER_ENCODING": "chunked"}},
}


def client_that(*looks: Callable[[], object], **config: object) -> FlaskClient:
    app = Flask("service")
    app.config.update(config)
    GreenData(app)
    app.add_url_rule("/", "index", lambda: jsonify([look() for look in looks]), methods=["POST"])
    return app.test_client()


def post(client: FlaskClient, kind: str) -> Any:
    return client.post("/", content_type="application/json", **KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [None, len(DATA), 1000])
def test_the_body_can_be_read_again(limit: int | None, kind: str) -> None:
    for order in permutations(LOOKS, 3):
        if "body" in order:
            answer = post(client_that(*(LOOKS[name] for name in order), MAX_CONTENT_LENGTH=limit), kind)
            assert (order, answer.get_json(force=True)) == (order, [SEEN.get(name, {}) for name in order])


def read_a_part() -> str:
    return request.stream.read(3).decode()


def read_all() -> str:
    return request.stream.read().decode()


def not_kept() -> str:
    return request.get_data(cache=False).decode()


def json_not_kept() -> object:
    return request.get_json(cache=False)


@pytest.mark.parametrize("kind", ["length", "server_ends_it"])
@pytest.mark.parametrize("look", [read_a_part, read_all, not_kept, json_not_kept])
def test_an_incomplete_body_is_not_accepted(look: Callable[[], object], kind: str) -> None:
    answer = post(client_that(look, LOOKS["body"]), kind)
    assert answer.status_code == 400
    assert "of its 22 bytes received; it was cut short, or read before and not" in answer.get_json(force=True)["detail"]


@pytest.mark.parametrize("kind", ["chunked", "server_ends_it"])
def test_the_stream_after_it_has_the_body(kind: str) -> None:
    assert post(client_that(LOOKS["body"], read_all), kind).get_json() == [ROWS, DATA.decode()]


class _Sized(BytesIO):
    """A stream that records how many bytes are requested at once."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.sizes: list[int | None] = []

    def read(self, size: int | None = -1, /) -> bytes:
        self.sizes.append(size)
        return super().read(size)


FORM = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.json"\r\n'
    b"Content-Type: application/json\r\n\r\n" + DATA + b"\r\n--x--\r\n"
)


@pytest.mark.parametrize(
    ("content_type", "data"), [("application/json", DATA), ("multipart/form-data; boundary=x", FORM)]
)
def test_a_chunked_body_is_read_in_small_pieces(content_type: str, data: bytes) -> None:
    """Each chunk takes its server some microseconds of Python, in which no other request is served."""
    stream = _Sized(data)
    found = client_that(LOOKS["body"]).post(
        "/", content_type=content_type, input_stream=stream, environ_overrides=KINDS["chunked"]["environ_overrides"]
    )
    assert found.get_json() == [ROWS]
    assert all(size is not None and 0 <= size <= 1024 for size in stream.sizes)


def test_the_rest_of_a_body_that_was_too_large_is_empty() -> None:
    def again() -> list[object]:
        for limit in (5, 1000):
            try:
                return [limit, *body(Item, max_bytes=limit).to_dicts()]
            except ValueError as error:
                told.append(type(error).__name__)
        return []

    told: list[str] = []
    client = client_that(again)
    assert post(client, "chunked").get_json() == [[]]
    assert told == ["BodyTooLarge", "BodyTooLarge"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_applies_to_a_body_that_was_read_before(kind: str) -> None:
    client = client_that(LOOKS["get_data"], LOOKS["body"], GREENDATA_MAX_BODY=10)
    assert post(client, kind).status_code == 413


SERVICE = """
from flask import Flask, request
from pydantic import BaseModel
from greendata.web.flask import GreenData, body

class Item(BaseModel):
    id: int

app = Flask("service")
GreenData(app)

@app.before_request
def look():
    if "look" in request.args:
        request.get_data()

@app.post("/")
def index():
    return {"sum": body(Item)["id"].sum()}
"""

WORKERS = ["greendata.web.gunicorn.GreenWorker", "gunicorn.workers.ggevent.GeventPyWSGIWorker", "gthread"]


@pytest.fixture(scope="module", params=WORKERS, ids=["gunicorn", "pywsgi", "threads"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("server")
    started = Server(folder, SERVICE, ["-k", request.param, "--threads", "2", "--graceful-timeout", "2"], {})
    yield started
    started.stop()


def answer_to(server: Server, headers: str, sent: bytes, *, path: str = "/", ends: bool = False) -> tuple[int, Any]:
    """Return the response to a POST, after which the client may close its sending side."""
    if "Content-Type" not in headers:
        headers = f"Content-Type: text/csv\r\n{headers}"
    head = f"POST {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n{headers}\r\n\r\n"
    with server.connected(head.encode() + sent) as client:
        if ends:
            client.shutdown(socket.SHUT_WR)
        received = b""
        while piece := client.recv(1 << 16):
            received += piece
    top, _, rest = received.partition(b"\r\n\r\n")
    return int(top.split()[1]), json.loads(rest)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


CSV = b"id\n1\n2\n"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize("path", ["/", "/?look=1"])
def test_real_servers_deliver_complete_bodies(server: Server, path: str) -> None:
    assert answer_to(server, "Content-Length: 7", CSV, path=path) == (200, {"sum": 3})
    assert answer_to(server, CHUNKED, chunk(CSV[:4]) + chunk(CSV[4:]) + b"0\r\n\r\n", path=path) == (200, {"sum": 3})
    assert answer_to(server, "Content-Length: 7", CSV + b"9\n", path=path) == (200, {"sum": 3})


FORM = (
    b'--xx\r\nContent-Disposition: form-data; name="a"; filename="a.csv"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n" + CSV + b"\r\n--xx--\r\n"
)
IN_FORM = "Content-Type: multipart/form-data; boundary=xx\r\n"
ZIPPED = gzip.compress(CSV)
IN_GZIP = "Content-Encoding: gzip\r\n"


@pytest.mark.parametrize(("headers", "data"), [(IN_FORM, FORM), (IN_GZIP, ZIPPED)], ids=["form", "gzip"])
def test_real_servers_deliver_forms_and_compressed_bodies(server: Server, headers: str, data: bytes) -> None:
    for path in ("/", "/?look=1"):
        whole = answer_to(server, f"{headers}Content-Length: {len(data)}", data, path=path)
        chunked = answer_to(server, headers + CHUNKED, chunk(data[:20]) + chunk(data[20:]) + b"0\r\n\r\n", path=path)
        assert (whole, chunked) == ((200, {"sum": 3}), (200, {"sum": 3}))
    for sent in (data[:20], data[:-1]):
        for header, part in ((f"Content-Length: {len(data)}", sent), (CHUNKED, chunk(sent))):
            status, problem = answer_to(server, headers + header, part, ends=True)
            assert (status, problem["title"]) == (400, "The body cannot be read")


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        ("Content-Length: 9", CSV),
        ("Content-Length: 9", b""),
        (CHUNKED, chunk(CSV)),
        (CHUNKED, chunk(CSV)[:-4]),
        (CHUNKED, b"9\r\n" + CSV),
        (CHUNKED, chunk(CSV) + b"zz\r\n"),
        (CHUNKED, b"2\r\n" + CSV + b"\r\n0\r\n\r\n"),
    ],
)
def test_a_body_that_is_cut_short_is_a_bad_request(server: Server, headers: str, sent: bytes) -> None:
    status, problem = answer_to(server, headers, sent, ends=True)
    assert status == 400
    assert problem["title"] == "The body cannot be read"
    assert "it was cut short" in problem["detail"]
