"""Files in forms, and the options of CSV: what browsers, curl and axios send."""

from __future__ import annotations

import gzip
import io
import tempfile
from typing import Any

import pytest
from flask import Flask, jsonify, request
from flask.testing import FlaskClient
from pydantic import BaseModel

from greendata.errors import BadArgument
from greendata.web.flask import GreenData, body
from tests.support.frames import crowded
from tests.web.test_body import BODIES, FRAME, User

LIMIT = 1_000_000
LARGE = b"id\n" + b"1\n" * 300_000  # Werkzeug writes it to a file on the disk


@pytest.fixture
def client() -> FlaskClient:
    app = Flask("service")
    app.config["GREENDATA_MAX_BODY"] = LIMIT
    GreenData(app)
    app.add_url_rule("/", "index", lambda: jsonify(body(User).to_dicts()), methods=["POST"])
    app.add_url_rule("/part", "part", lambda: jsonify(body(User, part="b").to_dicts()), methods=["POST"])
    return app.test_client()


def sent(content: bytes, name: str = "a.csv", content_type: str = "text/csv", **fields: str) -> dict[str, Any]:
    return {"data": {"upload": (io.BytesIO(content), name, content_type), **fields}}


def detail(answer: Any, status: int = 400) -> str:
    assert answer.status_code == status
    return str(answer.get_json(force=True)["detail"])


@pytest.mark.parametrize("kind", BODIES)
def test_the_file_of_a_form_is_the_body(client: FlaskClient, kind: str) -> None:
    content_type, content = BODIES[kind]
    with crowded():
        answer = client.post("/", **sent(content, "x", content_type, title="t"))
        assert answer.get_json() == FRAME.to_dicts()


@pytest.mark.parametrize("content_type", ["application/octet-stream", "application/vnd.ms-excel", "text/plain"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.CSV", "csv"), ("b.jsonl", "ndjson"), ("c.json", "rows"), ("d.parquet", "parquet"), ("e.arrows", "arrow")],
)
def test_the_name_of_the_file_tells_what_its_type_does_not(
    client: FlaskClient, name: str, kind: str, content_type: str
) -> None:
    content = BODIES[kind][1]
    assert client.post("/", **sent(content, name, content_type)).get_json() == FRAME.to_dicts()
    if kind != "parquet":
        packed = gzip.compress(content[:9]) + gzip.compress(content[9:])
        for packed_type in (content_type, "application/gzip"):
            answer = client.post("/", **sent(packed, f"{name}.gz", packed_type))
            assert answer.get_json() == FRAME.to_dicts()


def test_tabs(client: FlaskClient) -> None:
    text = "id\tname\n1\ta\n2\tü\n".encode()
    for answer in (
        client.post("/", data=text, content_type="text/tab-separated-values"),
        client.post("/", **sent(text, "a", "text/tab-separated-values")),
        client.post("/", **sent(text, "a.tsv", "application/octet-stream")),
    ):
        assert answer.get_json() == FRAME.to_dicts()


def test_the_app_has_the_form_before_and_after(client: FlaskClient) -> None:
    def look() -> list[object]:
        return [request.form["title"], request.files["upload"].read().decode()]

    for looks in ([look, lambda: body(User).height, look], [lambda: body(User).height, look]):
        client.application.view_functions["index"] = lambda looks=looks: jsonify([look() for look in looks])
        expected: list[object] = [["t", "id\n1\n"], 1, ["t", "id\n1\n"]]
        assert client.post("/", **sent(b"id\n1\n", title="t")).get_json() == expected[-len(looks) :]


def test_which_file(client: FlaskClient) -> None:
    def files(**names: str) -> dict[str, Any]:
        return {"data": {field: (io.BytesIO(b"id\n1\n"), name, "text/csv") for field, name in names.items()}}

    assert client.post("/part", **files(a="x.csv", b="y.csv")).get_json() == [{"id": 1, "name": "?"}]
    assert "expected one file, got 2 files in the fields 'a', 'b'" in detail(client.post("/", **files(a="1", b="2")))
    assert "expected one file in the field 'b', got 1 file in the fields 'a'" in detail(
        client.post("/part", **files(a="1"))
    )
    form = {"data": {"title": "t"}, "content_type": "multipart/form-data"}
    assert "expected one file, got none" in detail(client.post("/", **form))
    answer = client.post("/", **sent(b"%PDF", "a.pdf", "application/pdf"))
    assert "Content-Type of 'a.pdf': got 'application/pdf'" in detail(answer, 415)
    assert detail(client.post("/", **sent(b"id\n", "a", "text/plain")), 415)
    coded = client.post("/", **sent(b"id\n"), headers={"Content-Encoding": "gzip"})
    assert detail(coded, 415) == "Content-Encoding: got 'gzip', expected one of identity"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The spooled files that Werkzeug makes."""
    files: list[Any] = []

    class Spooled(tempfile.SpooledTemporaryFile[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            files.append(self)

    monkeypatch.setattr("werkzeug.formparser.SpooledTemporaryFile", Spooled)
    return files


def form(content: bytes, *, boundary: bytes = b"xx", end: bytes = b"\r\n--xx--\r\n") -> dict[str, Any]:
    head = b'--xx\r\nContent-Disposition: form-data; name="a"; filename="a.csv"\r\nContent-Type: text/csv\r\n\r\n'
    return {"data": head + content + end, "content_type": "multipart/form-data; boundary=" + boundary.decode()}


def test_large_files_are_closed_with_the_request(client: FlaskClient, opened: list[Any]) -> None:
    assert len(client.post("/", **form(LARGE)).get_json()) == 300_000
    assert [file.closed for file in opened] == [True]


@pytest.mark.parametrize("chunked", [False, True])
def test_forms_above_the_limit(client: FlaskClient, opened: list[Any], chunked: bool) -> None:  # noqa: FBT001
    large = form(LARGE * 3)
    stream = io.BytesIO(large.pop("data"))
    told: dict[str, Any] = (
        {"environ_overrides": {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}}
        if chunked
        else {"content_length": len(stream.getvalue())}
    )
    answer = client.post("/", input_stream=stream, **large, **told)
    assert answer.status_code == 413
    assert answer.get_json(force=True)["limit"] == LIMIT
    assert stream.tell() <= LIMIT + (1 << 16)
    assert all(file.closed for file in opened)
    assert len(opened) == chunked


def test_other_limits_of_forms(client: FlaskClient, opened: list[Any]) -> None:
    text = b'\r\n--xx\r\nContent-Disposition: form-data; name="title"\r\n\r\n' + b"x" * 600_000
    assert client.post("/", **form(LARGE[:300_000] + text)).status_code == 413
    many = b"".join(b'--xx\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' for _ in range(2000))
    parts = {"data": many + b"--xx--\r\n", "content_type": "multipart/form-data; boundary=xx"}
    assert client.post("/", **parts).status_code == 413
    bomb = gzip.compress(b"id\n" + bytes(50_000_000))
    assert client.post("/", **sent(bomb, "a.csv.gz", "application/gzip")).status_code == 413
    assert all(file.closed for file in opened)


def test_broken_forms(client: FlaskClient, opened: list[Any]) -> None:
    assert "its last boundary is missing" in detail(client.post("/", **form(LARGE, end=b"")))
    assert "Missing boundary" in detail(client.post("/", **form(LARGE, boundary=b"")))
    assert "its last boundary is missing" in detail(client.post("/", **form(b"id\n", boundary=b"other")))
    cut = form(LARGE)
    length = len(cut["data"])
    cut["input_stream"] = io.BytesIO(cut.pop("data")[:-100_000])
    answer = client.post("/", **cut, environ_overrides={"CONTENT_LENGTH": str(length)})
    assert f"{length - 100_000} of its {length} bytes received" in detail(answer)
    assert "it is cut short" in detail(client.post("/", **sent(gzip.compress(b"id\n")[:-1], "a.csv.gz", "text/plain")))
    assert opened
    assert all(file.closed for file in opened)


# -- the options of CSV -----------------------------------------------------------------------------------


def post_with(client: FlaskClient, content: bytes, content_type: str = "text/csv", **options: Any) -> Any:
    client.application.view_functions["index"] = lambda: jsonify(body(User, **options).to_dicts())
    return client.post("/", data=content, content_type=content_type)


class Nullable(BaseModel):
    id: int
    name: str | None


def test_options_of_csv(client: FlaskClient) -> None:
    text = "Bericht\n#é\n1;-\n2;ü\n".encode("latin-1")
    options: dict[str, Any] = {"separator": ";", "encoding": "latin-1", "has_header": False, "null_values": "-"}
    options |= {"comment_prefix": "#", "skip_rows": 1}
    client.application.view_functions["index"] = lambda: jsonify(body(Nullable, **options).rows())
    assert client.post("/", data=text, content_type="text/csv").get_json() == [[1, None], [2, "ü"]]
    assert client.post("/", **sent(text)).get_json() == [[1, None], [2, "ü"]]
    assert client.post("/", json=[{"id": 1, "name": "-"}]).get_json() == [[1, "-"]]
    twice = b"id,id\n1,2\n"
    assert post_with(client, twice).status_code == 400
    assert post_with(client, twice, rename_duplicates=True).get_json() == [{"id": 1, "name": "?"}]


@pytest.mark.parametrize(
    ("charset", "encoding"),
    [
        ("iso-8859-1", "latin-1"),
        ("Windows-1252", "cp1252"),
        ("utf-16", "utf-16"),
        ("utf-8", "utf-8"),
        ("US-ASCII", "utf8"),
    ],
)
def test_the_charset_of_the_client(client: FlaskClient, charset: str, encoding: str) -> None:
    text = "id,name\n1,a\n2,ü\n".encode(encoding)
    for answer in (
        client.post("/", data=text, content_type=f"text/csv; charset={charset}"),
        client.post("/", **sent(text, "a", f"text/csv; charset={charset}")),
    ):
        assert answer.get_json() == FRAME.to_dicts()
    if encoding != "utf-16":
        assert post_with(client, text, "text/csv; charset=utf-16", encoding=encoding).get_json() == FRAME.to_dicts()


@pytest.mark.parametrize(
    "charset", ["nope", "idna", "punycode", "unicode_escape", "zlib", "rot13", "utf-7", "iso-8859-99"]
)
def test_charsets_that_a_client_may_not_name(client: FlaskClient, charset: str) -> None:
    answer = client.post("/", data=b"id\n1\n", content_type=f"text/csv; charset={charset}")
    assert f"got 'charset={charset}', expected one of utf-8" in detail(answer, 415)


def test_the_charset_of_json_is_ignored(client: FlaskClient) -> None:
    content_type, data = "application/json; charset=nope", BODIES["rows"][1]
    assert client.post("/", data=data, content_type=content_type).get_json() == FRAME.to_dicts()


def test_bad_options_are_errors_of_the_service() -> None:
    for data in ({"json": []}, {"data": b"id\n", "content_type": "text/csv"}):
        with (
            Flask("service").test_request_context("/", method="POST", **data),  # type: ignore[arg-type]
            pytest.raises(BadArgument, match="separator must be"),
        ):
            body(User, separator=";;")


def test_failures_name_the_line(client: FlaskClient) -> None:
    answer = post_with(client, b"x\nid\n1\nbad\n", skip_rows=1)
    (failure,) = answer.get_json(force=True)["failures"]
    assert (failure["row"], failure["line"]) == (1, 4)
