"""Text is scanned in chunks, and the result does not depend on where the chunks end."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies

from greendata.formats.guards import chunk_scan

contents = strategies.lists(strategies.sampled_from([b"\n", b'"', b"a", b"!", b"bcde"]), max_size=60).map(b"".join)


def records_of(content: bytes, *, quoted: bool) -> list[bytes]:
    """Return the records of *content*, found byte by byte."""
    found, record, is_open = [], b"", False
    for byte in (content[at : at + 1] for at in range(len(content))):
        record += byte
        is_open ^= quoted and byte == b'"'
        if byte == b"\n" and not is_open:
            found.append(record)
            record = b""
    return [*found, record] if record else found


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_scan, "SCAN_BYTES", 4)
    monkeypatch.setattr(chunk_scan, "LARGE_BYTES", 16)


@given(content=contents, quoted=strategies.booleans())
def test_the_first_failure(content: bytes, *, quoted: bool) -> None:
    def check(some: bytes, begin: int) -> Exception | None:
        assert content[begin : begin + len(some)] == some
        return ValueError() if b"!" in some else None

    records = records_of(content, quoted=quoted)
    begins = [1 + b"".join(records[:number]).count(b"\n") for number in range(len(records))]
    failure = chunk_scan.first_failure(content, check, quoted=quoted)
    if failure is None:
        assert b"!" not in content
    elif failure.error is not None:
        assert b"!" in failure.record
        assert failure.line in begins
        assert failure.record in records
        small = b"".join(record for record in records[: begins.index(failure.line)] if len(record) <= 16)
        assert b"!" not in small
    else:
        assert len(records[begins.index(failure.line)]) > 16
        assert b"!" not in b"".join(record for record in records if len(record) <= 16)


@given(content=contents)
def test_where_a_quote_is_open(content: bytes) -> None:
    records = records_of(content, quoted=True)
    line = chunk_scan.unclosed_quote_line(content)
    if line is None:
        assert content.count(b'"') % 2 == 0
    else:
        assert records[-1].count(b'"') % 2 == 1
        assert line == 1 + b"".join(records[:-1]).count(b"\n")
    assert chunk_scan.has_large_record(content) >= (max(map(len, records), default=0) > 16)


@given(content=contents, begin=strategies.integers(0, 20))
def test_counts_and_offsets_across_chunks(content: bytes, begin: int) -> None:
    begin = min(begin, len(content))
    assert chunk_scan.count(content, b"a", begin) == content.count(b"a", begin)
    assert chunk_scan.line_end(content, begin) == (content.find(b"\n", begin) + 1 or len(content))
    assert content[chunk_scan.first_byte(content, begin) :] == content[begin:].lstrip()
    assert content[chunk_scan.first_byte(content, begin, skip=b"ab") :] == content[begin:].lstrip(b"ab")
