"""Decode the content encodings of responses as leniently as browsers do, within a limit of memory.

Servers send gzip in several members, bytes after the end of the data, deflate with and without its header, plain text
that is said to be compressed, and bodies that are cut short. All that arrived is kept, and the rest is missing.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from greendata.formats.guards.gunzip import GZIP

try:
    import brotli  # type: ignore[import-untyped]
except ImportError:  # then it is not accepted
    brotli = None

__all__ = ("ACCEPTED", "Decoder", "Identity", "decoder_of")

PIECE = 64 * 1024  # bytes that a decoder returns at once, however much its input expands
MEMBERS = 1_000  # of one gzip body; even an empty one takes some microseconds
LAYERS = 3  # encodings of one body; more are not seen outside of attacks
WASTED = 1 << 20  # bytes that a layer expands and the next one turns into nothing; in real bodies they are under 100 kB
_GZIP_FORMAT, _NO_HEADER = 16 + zlib.MAX_WBITS, -zlib.MAX_WBITS  # as zlib has them
_PACKED = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi", "pack200-gzip", "aes128gcm"})


class Decoder(Protocol):
    """Decodes one body, part by part."""

    @property
    def is_complete(self) -> bool:
        """True if the body has ended where its data say that it ends."""

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield what *data*, the next part of the body, decodes to, in pieces of about 64 kB.

        Data that cannot be decoded end the body: nothing more is yielded.
        """


def decoder_of(content_encoding: str) -> Decoder | None:
    """Return a decoder for the value of a Content-Encoding header, or None if it needs what is not installed.

    A value that names no compression, such as ``utf-8``, is ignored: the servers that send it do not compress.

    Example:
        >>> import gzip
        >>> decoder = decoder_of("gzip")
        >>> body = gzip.compress(b"two ") + gzip.compress(b"members") + b"and more"
        >>> b"".join(decoder.decode(body)), decoder.is_complete
        (b'two members', True)
    """
    names = [name for part in content_encoding.lower().split(",") if (name := part.strip()) not in ("", "identity")]
    known = [name for name in names if name in _DECODERS or name in _PACKED]
    if len(known) > LAYERS or any(name not in _DECODERS for name in known):
        return None
    decoders = [_DECODERS[name]() for name in reversed(known)]
    if not decoders:
        return Identity()
    return decoders[0] if len(decoders) == 1 else _Layers(decoders)


class Identity:
    """The decoder of a body without an encoding."""

    is_complete = True

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield *data*."""
        if data:
            yield data


class _Layers:
    """Several decoders, the outermost first.

    One can expand a thousandfold what the next one turns into nothing: a megabyte of gzip in gzip in gzip would take
    hours, and no limit of the body would end it. So what is between the layers has a limit of its own.
    """

    def __init__(self, decoders: list[Decoder]) -> None:
        self._decoders = decoders
        self._wasted = 0  # bytes between the layers, less those of the body

    @property
    def is_complete(self) -> bool:
        return self._wasted <= WASTED and all(decoder.is_complete for decoder in self._decoders)

    def decode(self, data: bytes) -> Iterator[bytes]:
        return self._from(0, data)

    def _from(self, layer: int, data: bytes) -> Iterator[bytes]:
        if layer == len(self._decoders):
            self._wasted -= layer * len(data)
            yield data
            return
        for piece in self._decoders[layer].decode(data):
            self._wasted += len(piece)
            if self._wasted > WASTED:
                return
            yield from self._from(layer + 1, piece)


class _Compressed(ABC):
    """What all compressions have in common: a body that is plain from its first byte on is returned as it is."""

    errors: tuple[type[Exception], ...] = (zlib.error,)

    def __init__(self) -> None:
        self.is_complete = False
        self._head: bytearray | None = bytearray()  # the input until something was decoded; it may come byte by byte
        self._is_plain = False
        self._is_over = False  # what follows is ignored

    def decode(self, data: bytes) -> Iterator[bytes]:
        if self._is_plain:
            yield data
        if self._is_plain or self._is_over:
            return
        if self._head is not None:
            self._head += data
        try:
            for piece in self._pieces(data):
                self._head = None
                yield piece
        except self.errors:
            head, self._head, self._is_over, self.is_complete = self._head, None, True, False
            if head is not None:
                yield from self._retry(bytes(head))

    def _retry(self, head: bytes) -> Iterator[bytes]:
        """Yield what *head*, the input so far, decodes to in another way."""
        self._is_plain = self.is_complete = True
        yield head

    @abstractmethod
    def _pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield what *data*, the next part of the body, decodes to."""


class _Gzip(_Compressed):
    def __init__(self) -> None:
        super().__init__()
        self._member = zlib.decompressobj(_GZIP_FORMAT)
        self._members = 1

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                self._is_over = not data.startswith(GZIP[: len(data)])  # bytes after the end
                if self._is_over:
                    return
                self._members += 1
                if self._members > MEMBERS:
                    raise zlib.error("too many members")
                self._member = zlib.decompressobj(_GZIP_FORMAT)
            yield from _inflated(self._member, data)
            self.is_complete = self._member.eof
            data = self._member.unused_data

    def _retry(self, head: bytes) -> Iterator[bytes]:
        if not head.startswith(GZIP):
            yield from super()._retry(head)


class _Deflate(_Compressed):
    def __init__(self) -> None:
        super().__init__()
        self._data = zlib.decompressobj()
        self._has_header = True

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        yield from _inflated(self._data, data)
        self.is_complete = self._is_over = self._data.eof

    def _retry(self, head: bytes) -> Iterator[bytes]:
        if not self._has_header:
            yield from super()._retry(head)
            return
        self._data, self._head = zlib.decompressobj(_NO_HEADER), bytearray()
        self._has_header = self._is_over = False
        yield from self.decode(head)


class _Brotli(_Compressed):
    def __init__(self) -> None:
        super().__init__()
        self.errors = (brotli.error,)
        self._data = brotli.Decompressor()

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        while piece := self._data.process(data, output_buffer_limit=PIECE):
            yield piece
            data = b""
        self.is_complete = self._is_over = self._data.is_finished()

    def _retry(self, head: bytes) -> Iterator[bytes]:
        if head.lstrip()[:1] in (b"<", b"{", b"["):  # the format has no first bytes by which to know it
            yield from super()._retry(head)


def _inflated(stream: Any, data: bytes) -> Iterator[bytes]:
    while piece := stream.decompress(data, PIECE):
        yield piece
        data = stream.unconsumed_tail


_DECODERS: dict[str, Callable[[], Decoder]] = {"gzip": _Gzip, "x-gzip": _Gzip, "deflate": _Deflate}
if hasattr(getattr(brotli, "Decompressor", None), "can_accept_more_data"):  # it limits its output, from 1.2 on
    _DECODERS["br"] = _Brotli
ACCEPTED = ", ".join(name for name in _DECODERS if name != "x-gzip")  # the value of an Accept-Encoding header
