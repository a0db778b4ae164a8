"""Content encodings, decoded as leniently as browsers do."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib

import brotli
import pytest

from greendata.http.encodings import ACCEPTED, MEMBERS, PIECE, decoder_of

TEXT = b"<!DOCTYPE html>" + b"".join(b"<p>paragraph %d</p>" % n for n in range(3_000))
SIZES = (1, 7, 1_000, 10**7)  # bytes that arrive at once


def decoded(encoding: str, body: bytes, size: int = 1_000) -> tuple[bytes, bool]:
    """Return what *body* decodes to, and whether it was complete."""
    decoder = decoder_of(encoding)
    assert decoder is not None
    parts = [body[begin : begin + size] for begin in range(0, len(body), size)]
    return b"".join(piece for part in parts for piece in decoder.decode(part)), decoder.is_complete


WHOLE = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "x-gzip, in capitals": (" X-GZip ", gzip.compress(TEXT)),
    "two members": ("gzip", gzip.compress(TEXT[:99]) + gzip.compress(TEXT[99:])),
    "bytes after the end": ("gzip", gzip.compress(TEXT) + b"\0" * 50 + b"junk"),
    "one byte after the end": ("gzip", gzip.compress(TEXT) + b"\x1f"),
    "deflate with its header": ("deflate", zlib.compress(TEXT)),
    "deflate without its header": ("deflate", zlib.compress(TEXT)[2:-4]),
    "bytes after deflate": ("deflate", zlib.compress(TEXT) + b"junk"),
    "brotli": ("br", brotli.compress(TEXT)),
    "two encodings": ("gzip, br", brotli.compress(gzip.compress(TEXT))),
    "gzip twice": ("gzip, gzip", gzip.compress(gzip.compress(TEXT))),
    "none": ("", TEXT),
    "identity": ("identity", TEXT),
    "no encoding at all": ("utf-8", TEXT),
    "plain, said to be gzip": ("gzip", TEXT),
    "plain, said to be deflate": ("deflate", TEXT),
    "plain, said to be brotli": ("br", TEXT),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", WHOLE)
def test_all_that_browsers_read(case: str, size: int) -> None:
    encoding, body = WHOLE[case]
    found, is_complete = decoded(encoding, body, size)
    assert found == TEXT
    assert is_complete is (case != "one byte after the end")


CUT = {
    "gzip": ("gzip", gzip.compress(TEXT)[:-3_000]),
    "the checksum of gzip": ("gzip", gzip.compress(TEXT)[:-1]),
    "the second member": ("gzip", gzip.compress(TEXT) + gzip.compress(TEXT)[:-3_000]),
    "deflate": ("deflate", zlib.compress(TEXT)[:-3_000]),
    "brotli": ("br", brotli.compress(TEXT)[:-200]),
    "two encodings": ("gzip, br", brotli.compress(gzip.compress(TEXT)[:-3_000])),
    "garbled gzip": ("gzip", gzip.compress(TEXT)[:-3_000] + b"\xff" * 3_000),
}


@pytest.mark.parametrize("case", CUT)
def test_what_arrived_of_a_body_that_is_cut_short(case: str) -> None:
    encoding, body = CUT[case]
    found, is_complete = decoded(encoding, body, 100)
    assert not is_complete
    assert len(found) > 1_000
    assert found[:1_000] == TEXT[:1_000]


def test_gzip_that_is_broken_from_its_beginning_is_not_text() -> None:
    assert decoded("gzip", b"\x1f\x8b\x08\xff" + b"\xff" * 100) == (b"", False)


@pytest.mark.parametrize("encoding", ["zstd", "compress", "gzip, zstd", "gzip, gzip, gzip, gzip"])
def test_encodings_that_were_not_asked_for(encoding: str) -> None:
    assert decoder_of(encoding) is None
    assert encoding not in ACCEPTED


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
def test_a_bomb_is_returned_in_small_pieces(encoding: str) -> None:
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress}[encoding]
    decoder = decoder_of(encoding)
    assert decoder is not None
    sizes = [len(piece) for piece in decoder.decode(pack(bytes(20_000_000)))]
    assert sum(sizes) == 20_000_000
    assert max(sizes) <= 2 * PIECE


def test_the_number_of_members_is_limited() -> None:
    empty = gzip.compress(b"")
    assert decoded("gzip", empty * MEMBERS + gzip.compress(TEXT)) == (b"", False)
    assert decoded("gzip", empty * (MEMBERS - 1) + gzip.compress(TEXT)) == (TEXT, True)


def test_what_expands_between_two_layers_and_comes_to_nothing_ends_the_body() -> None:
    """Blocks without data inflate to nothing, and a layer around them packs a thousand of them into five bytes."""
    nothing = gzip.compress(b"")[:10] + (64 << 20) // 5 * b"\x00\x00\x00\xff\xff"
    body = gzip.compress(nothing)
    assert len(body) < 100_000
    tracemalloc.start()
    try:
        assert decoded("gzip, gzip", body) == (b"", False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 << 20


@pytest.mark.parametrize("body", [TEXT * 200, random.Random(1).randbytes(10_000_000)], ids=["text", "random"])
def test_large_bodies_in_several_layers_are_whole(body: bytes) -> None:
    packed = gzip.compress(gzip.compress(brotli.compress(body, quality=1)))
    assert decoded("br, gzip, gzip", packed, size=100_000) == (body, True)
