"""Bodies that nest too deep are rejected before a parser reads them, wherever the brackets are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies

from greendata.errors import Malformed
from greendata.formats.guards import json_depth
from greendata.formats.guards.json_depth import DEPTH, reject_deep_document, reject_deep_lines

pytestmark = pytest.mark.once("unpatched")  # values only: patching makes no difference

LISTS = ("[", "]")
OBJECTS = ('{"a":', "}")
TRICKY = '"[[[", "]]]", "\\"[{", "\\\\", "{\\\\\\"[["'  # strings with brackets, quotes and backslashes

leaves = strategies.none() | strategies.integers() | strategies.text(alphabet='[]{}"\\,: a\n', max_size=8)
documents = strategies.recursive(
    leaves,
    lambda inner: (
        strategies.lists(inner, max_size=4)
        | strategies.dictionaries(strategies.text(alphabet='[]{}"\\a', max_size=4), inner, max_size=4)
    ),
    max_leaves=40,
)


def nested(levels: int, pair: tuple[str, str], inner: str = "1") -> bytes:
    return (pair[0] * levels + inner + pair[1] * levels).encode()


def levels_of(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(levels_of, value), default=0) if isinstance(value, list) else 0


def is_rejected(check: Callable[[bytes], None], content: bytes) -> bool:
    try:
        check(content)
    except Malformed:
        return True
    return False


@pytest.mark.parametrize("pair", [LISTS, OBJECTS], ids=["lists", "objects"])
@pytest.mark.parametrize("check", [reject_deep_document, reject_deep_lines])
@pytest.mark.parametrize("chunk", [7, json_depth.SCAN_BYTES])
def test_the_limit(
    monkeypatch: pytest.MonkeyPatch, chunk: int, check: Callable[[bytes], None], pair: tuple[str, str]
) -> None:
    monkeypatch.setattr(json_depth, "SCAN_BYTES", chunk)
    check(nested(DEPTH, pair))
    check(nested(DEPTH - 1, pair, f"[{TRICKY}]"))
    for levels in (3 * DEPTH + 1, 100_000):
        with pytest.raises(Malformed, match=f"more than {DEPTH} levels deep"):
            check(nested(levels, pair))
        with pytest.raises(Malformed):
            check(
                b'{"x": [' + TRICKY.encode() + b"], " + nested(levels, pair)[1:]
                if pair is OBJECTS
                else b"[" + TRICKY.encode() + b", " + nested(levels, pair) + b"]"
            )


def test_the_line_is_named_and_lines_before_it_hide_nothing() -> None:
    content = b'{"a":"\n]]]}}}\n{"a":[' + b"[],{}," * 100 + b"1]}\n" + nested(500, LISTS) + b'\n{"a":1}\n'
    with pytest.raises(Malformed) as caught:
        reject_deep_lines(content)
    assert (caught.value.line, caught.value.row) == (4, None)


@pytest.mark.parametrize("chunk", [2, 5, 64])
@pytest.mark.parametrize("limit", [1, 2, 4])
@given(value=documents)
def test_as_the_standard_parser_sees_it(chunk: int, limit: int, value: Any) -> None:
    """A value within the limit is never rejected; a value more than three times as deep always is."""
    content = json.dumps(value).encode()
    levels = levels_of(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_depth, "SCAN_BYTES", chunk)
        patch.setattr(json_depth, "DEPTH", limit)
        for check in (reject_deep_document, reject_deep_lines):
            if levels <= limit:
                assert not is_rejected(check, content)
            elif levels > 3 * limit:
                assert is_rejected(check, content)
