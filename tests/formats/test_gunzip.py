"""Gzip is decompressed to its end or not at all, in small steps, whatever it expands to."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greendata.errors import BodyTooLarge, Malformed
from greendata.formats.guards.gunzip import INPUT_BYTES, MEMBERS, STEP_BYTES, gunzip, inflate

TEXT = b"".join(b"%d,%d\n" % (number, number * number) for number in range(100_000))
PACKED = gzip.compress(TEXT)


def reason(content: bytes, *, max_members: int = 1) -> str:
    with pytest.raises(Malformed) as caught:
        gunzip(content, 1 << 30, max_members=max_members)
    return caught.value.reason


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), min_size=1), st.integers(0, 9))
def test_all_bytes_come_back_however_they_arrive(content: bytes, sizes: list[int], level: int) -> None:
    def pieces() -> Iterator[bytes]:
        begin = number = 0
        while begin < len(packed):
            size = sizes[number % len(sizes)]
            yield packed[begin : begin + size]
            begin, number = begin + size, number + 1

    packed = gzip.compress(content, level)
    assert b"".join(inflate(pieces())) == content


@pytest.mark.parametrize("size", [0, 1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 3 * STEP_BYTES])
def test_sizes_at_the_border_of_a_step(size: int) -> None:
    for content in (bytes(size), (TEXT * 2)[:size]):
        assert gunzip(gzip.compress(content), size) == content


def test_no_step_is_large() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    steps = [len(piece) for piece in inflate([bomb])]
    assert sum(steps) == 50_000_000
    assert max(steps) <= STEP_BYTES


def test_a_bomb_is_left_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    class Counted:
        def __init__(self, wbits: int) -> None:
            self._member = real(wbits)

        def __getattr__(self, name: str) -> object:
            return getattr(self._member, name)

        def decompress(self, data: bytes, size: int) -> bytes:
            nonlocal made
            piece = self._member.decompress(data, size)
            made += len(piece)
            return piece

    bomb = gzip.compress(bytes(50_000_000))
    real = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Counted)
    with pytest.raises(BodyTooLarge) as caught:
        gunzip(bomb, 1000)
    assert caught.value.limit == 1000
    assert made <= 1000 + STEP_BYTES


def test_every_cut_is_an_error() -> None:
    packed = gzip.compress(b"a,b\n1,2\n")
    for size in range(len(packed)):
        assert reason(packed[:size]) == "it is cut short"
    assert gunzip(packed, 100) == b"a,b\n1,2\n"


@pytest.mark.parametrize("more", [b"\0", b"x", b"\x1f\x8c", b"a,b\n1,2\n"])
@pytest.mark.parametrize("max_members", [1, 5])
def test_nothing_may_follow(more: bytes, max_members: int) -> None:
    assert reason(PACKED + more, max_members=max_members) == "something else follows its end"


@pytest.mark.parametrize("at", [0, 5 * INPUT_BYTES // 2, len(PACKED) - 8, len(PACKED) - 1])
def test_changed_bytes_are_found(at: int) -> None:
    """A changed byte in the data, its checksum or its length."""
    changed = bytearray(PACKED)
    changed[at] ^= 0x55
    assert reason(bytes(changed))


def test_several_members_are_one_text_where_they_may_be() -> None:
    members = [gzip.compress(part) for part in (b"a\n", b"", b"1\n", TEXT, b"2\n")]
    assert gunzip(b"".join(members), 1 << 30, max_members=MEMBERS) == b"a\n1\n" + TEXT + b"2\n"
    assert reason(b"".join(members)) == "it has more than one gzip stream; compress it as one"
    assert reason(b"".join(members), max_members=4) == "it has over 4 streams"
    assert reason(b"".join(members)[:-1], max_members=5) == "it is cut short"


@pytest.mark.parametrize("content", [TEXT, zlib.compress(TEXT), b"\x28\xb5\x2f\xfd1234", b"\x1f\x8b\x07aaaaaaaaaa"])
def test_other_data_is_not_gzip(content: bytes) -> None:
    assert "header" in reason(content) or "method" in reason(content)
