"""Objects with so many members that a parser would take minutes are rejected; all others are accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greendata.errors import Malformed
from greendata.formats.decoders import decode
from greendata.formats.guards import json_members
from greendata.formats.guards.json_members import MEMBERS, reject_many_members
from greendata.formats.guards.size_guard import reject_unsafe_file

pytestmark = pytest.mark.once("patched")  # values only: patching makes no difference

SCHEMA = pl.Schema({"a": pl.Int64})


def many(number: int, member: bytes = b'"a":1') -> bytes:
    return b"{" + b",".join([member] * number) + b"}"


@pytest.mark.parametrize("schema", [None, SCHEMA])
@pytest.mark.parametrize("member", [b'"a":1', b'"a":{}', b'"a":[{"b":[1,2]},"\\\\"]', b'"a":"{,\\"["'])
@pytest.mark.parametrize("around", [b"%s", b'{"x":1,"y":{"z":[[%s,1],2]},"a":3}'])
def test_an_object_of_too_many_members_is_rejected(schema: pl.Schema | None, member: bytes, around: bytes) -> None:
    large = around.replace(b"%s", many(MEMBERS + 300, member))
    for content, format in ((b'[{"a":1},' + large + b"]", "json"), (b'{"a":1}\n' + large, "ndjson")):
        with pytest.raises(Malformed, match=f"an object in it has more than {MEMBERS} members"):
            decode(content, format, schema=schema)


def test_a_file_with_an_object_of_too_many_members_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "rows.ndjson"
    path.write_bytes(many(MEMBERS + 300))
    with pytest.raises(Malformed, match="members"):
        reject_unsafe_file(path, "ndjson", {"schema": SCHEMA})


def test_many_objects_and_long_arrays_are_accepted() -> None:
    rows = b",".join([b'{"a":1}'] * (2 * MEMBERS))
    assert decode(b"[" + rows + b"]", "json").height == 2 * MEMBERS
    assert decode(b'{"a":[' + b",".join([b"1"] * 2 * MEMBERS) + b'],"b":[' + rows + b"]}", "json").width == 2
    assert decode(b"[" + many(MEMBERS // 2) + b"," + many(MEMBERS // 2) + b',{"a":2}]', "json").height == 3


documents = st.recursive(
    st.none() | st.integers() | st.text(alphabet='[]{}"\\,: a', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='[]{}"\\,a', max_size=4), inner, max_size=9)
    ),
    max_leaves=40,
)


def most_members(value: Any) -> int:
    own = len(value) if isinstance(value, dict) else 0
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max([own, *map(most_members, inner)])


@given(st.lists(documents, max_size=5), st.integers(8, 40))
@settings(max_examples=200)
def test_members_are_those_that_a_parser_finds(documents: list[Any], chunk: int) -> None:
    content = "\n".join(map(json.dumps, documents)).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_members, "SCAN_BYTES", chunk)
        patch.setattr(json_members, "MEMBERS", 0)
        patch.setattr(json_members, "_MANY", 2)
        patch.setattr(
            json_members, "_LARGE", rf"\{{(?:,*{json_members._SIGN}){{2}}"
        )  # four commas, or six if they are in several chunks
        try:
            reject_many_members(content, "ndjson")
            found = False
        except Malformed:
            found = True
    most = max(map(most_members, documents), default=0)
    assert most > 4 if found else most <= 6
