"""Check that an Arrow IPC stream is complete and declares plausible sizes before Polars reads it.

Polars accepts a stream that ends between two messages as complete. It also allocates the size that a compressed buffer
declares: a size of 2**60 bytes ends the process, and no exception can prevent that. It copies each buffer, so a
megabyte that a thousand columns share becomes a gigabyte. And it reads dictionaries that follow each other by
recursion, which overflows the stack. So the metadata of each message of an untrusted stream is checked first
(arrow.apache.org/docs/format/Columnar.html; flatbuffers.dev for the encoding).
Call on a worker.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice

from greendata.errors import Malformed

__all__ = ("DECODED_BYTES", "check_arrow_stream")

DECODED_BYTES = 1 << 31  # of all decompressed buffers together, at most: 2 GiB
NODE_ROWS = 1 << 28  # values of all columns, at most: nulls take no bytes in a stream, but memory in a frame
FIELDS = 1 << 14  # nested ones included, at most: tables may be shared, so a few bytes can stand for many fields
DEPTH = 64  # of nested fields, as in Arrow's own readers
DICTIONARIES = 1 << 11  # in a row, at most: each takes a kilobyte of the stack, which mostly has 8 MiB

_CONTINUED = b"\xff\xff\xff\xff"
_FILE = b"ARROW1"
_SCHEMA, _DICTIONARY, _RECORDS = 1, 2, 3  # the kinds of a message's header
_KIND, _HEADER, _BODY_LENGTH = 1, 2, 3  # the fields of a message
_NODES, _BUFFERS, _COMPRESSION = 1, 2, 3  # of a record batch
_DATA = 1  # of a dictionary batch: the record batch in it
_FIELDS, _CHILDREN = 1, 5  # of a schema and of a field


def check_arrow_stream(content: bytes) -> None:
    """Raise Malformed unless *content* is one complete stream whose size in memory is below the limits.

    Example:
        >>> from io import BytesIO
        >>> import polars as pl
        >>> file = BytesIO()
        >>> pl.DataFrame({"a": [1]}).write_ipc_stream(file)
        >>> check_arrow_stream(file.getvalue())
        >>> check_arrow_stream(file.getvalue()[:-8])
        Traceback (most recent call last):
        greendata.errors.formats.Malformed: not valid arrow: it is cut short: there is no end mark
    """
    try:
        _check(content)
    except struct.error as error:
        raise Malformed("arrow", f"the metadata of a message points outside it ({error})") from error


class _Table:
    """The flatbuffers table at the offset *at* of *content*."""

    def __init__(self, content: bytes, at: int) -> None:
        self.content = content
        self.at = at

    def number(self, field: int, form: str, default: int = 0) -> int:
        """Return the value of a numeric field, or *default* if it is absent. *form* is a format of `struct`."""
        at = self._place(field)
        return _number(self.content, at, form) if at else default

    def table(self, field: int) -> _Table | None:
        """Return the table in a field, or None if it is absent."""
        at = self._place(field)
        return _Table(self.content, at + _number(self.content, at, "<I")) if at else None

    def vector(self, field: int, size: int) -> Iterator[int]:
        """Return the offsets of the elements of a vector. Each element has *size* bytes."""
        at = self._place(field)
        if not at:
            return iter(())
        at += _number(self.content, at, "<I")
        count = _number(self.content, at, "<I")
        return iter(range(at + 4, at + 4 + size * count, size))

    def tables(self, field: int) -> Iterator[_Table]:
        """Return the elements of a vector of tables."""
        return (_Table(self.content, at + _number(self.content, at, "<I")) for at in self.vector(field, 4))

    def _place(self, field: int) -> int:
        """Return the offset of a field, or 0 if it is absent."""
        layout = self.at - _number(self.content, self.at, "<i")
        slot = 4 + 2 * field
        if slot >= _number(self.content, layout, "<H"):
            return 0
        offset = _number(self.content, layout + slot, "<H")
        return self.at + offset if offset else 0


def _check(content: bytes) -> None:
    at = decoded = rows = dictionaries = 0
    kinds: list[int] = []
    while True:
        if content[at : at + 4] != _CONTINUED:
            raise Malformed("arrow", _why_no_message(content, at))
        length = _number(content, at + 4, "<i")
        at += 8
        if length == 0:
            break
        metadata = content[at : at + length]
        if length < 0 or len(metadata) < length:
            raise Malformed("arrow", f"it is cut short: a message of {length} bytes, and {len(metadata)} are left")
        message = _Table(metadata, _number(metadata, 0, "<I"))
        body, size = at + length, message.number(_BODY_LENGTH, "<q")
        if not 0 <= size <= len(content) - body:
            raise Malformed("arrow", f"it is cut short: a body of {size} bytes, and {len(content) - body} are left")
        kinds.append(message.number(_KIND, "<B"))
        dictionaries = dictionaries + 1 if kinds[-1] == _DICTIONARY else 0
        if dictionaries > DICTIONARIES:
            raise Malformed("arrow", f"more than {DICTIONARIES} dictionaries without rows between them")
        more_decoded, more_rows = _check_message(message, kinds[-1], content, body, size)
        decoded, rows = decoded + more_decoded, rows + more_rows
        if decoded > DECODED_BYTES or rows > NODE_ROWS:
            raise Malformed("arrow", f"it declares {decoded} bytes and {rows} values: above the limit")
        at = body + size
    if kinds[:1] != [_SCHEMA] or not set(kinds[1:]) <= {_DICTIONARY, _RECORDS}:
        raise Malformed("arrow", "expected a schema and then batches; a stream of the IPC streaming format")
    if at != len(content):
        raise Malformed("arrow", f"{len(content) - at} bytes come after the end mark; streams cannot be concatenated")


def _why_no_message(content: bytes, at: int) -> str:
    if content.startswith(_FILE):
        return "it is an Arrow file (Feather), expected a stream, as write_ipc_stream makes it"
    if at >= len(content):
        return "it is cut short: there is no end mark"
    return f"expected a message at byte {at}, got {content[at : at + 8]!r}"


def _check_message(message: _Table, kind: int, content: bytes, body: int, size: int) -> tuple[int, int]:
    """Return the numbers of bytes and values that a message declares."""
    header = message.table(_HEADER)
    if header is None:
        raise Malformed("arrow", "a message without header")
    if kind == _SCHEMA:
        _check_fields(header)
        return 0, 0
    batch = header.table(_DATA) if kind == _DICTIONARY else header
    if batch is None:
        raise Malformed("arrow", "a dictionary without values")
    rows = 0
    for node in batch.vector(_NODES, 16):
        length = _number(batch.content, node, "<q")
        if not 0 <= length <= NODE_ROWS:
            raise Malformed("arrow", f"a column of {length} values")
        rows += length
    return sum(_decoded(batch, content, body, size)), rows


def _decoded(batch: _Table, content: bytes, body: int, size: int) -> Iterator[int]:
    """Yield the decompressed size that each compressed buffer declares, in bytes. No two buffers may share bytes."""
    is_compressed = batch.table(_COMPRESSION) is not None
    total = 0
    for at in batch.vector(_BUFFERS, 16):
        offset, length = _number(batch.content, at, "<q"), _number(batch.content, at + 8, "<q")
        if offset < 0 or length < 0 or offset + length > size:
            raise Malformed("arrow", "a buffer lies outside its message")
        total += length
        if total > size:
            raise Malformed("arrow", f"its buffers overlap: they have more than the {size} bytes of their message")
        if is_compressed and length:
            claimed = _number(content, body + offset, "<q") if length >= 8 else -2
            if not -1 <= claimed <= DECODED_BYTES:  # -1: this buffer is not compressed
                raise Malformed("arrow", f"a compressed buffer declares {claimed} bytes")
            yield max(claimed, 0)


def _check_fields(schema: _Table) -> None:
    level = list(islice(schema.tables(_FIELDS), FIELDS + 1))
    count = 0
    for _ in range(DEPTH):
        count += len(level)
        if not level:
            return
        if count > FIELDS:
            raise Malformed("arrow", f"more than {FIELDS} fields")
        level = list(islice((child for field in level for child in field.tables(_CHILDREN)), FIELDS + 1))
    raise Malformed("arrow", f"fields nest more than {DEPTH} levels deep")


def _number(content: bytes, at: int, form: str) -> int:
    if at < 0:
        raise struct.error(f"offset {at}")
    number: int = struct.unpack_from(form, content, at)[0]
    return number
