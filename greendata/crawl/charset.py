"""Decode pages as browsers do: the charset is that of the byte order mark, of the header, or of the page itself.

The labels are those of https://encoding.spec.whatwg.org, and no others. Python has codecs that take quadratic time
(punycode) or do not decode text (zlib), and a page could name those.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from functools import cache
from typing import Literal, NamedTuple

from greendata.hub.pacing import release_gil

__all__ = ("CharsetSource", "Decoded", "charset_of_label", "decode_html", "header_charset")

PRESCAN = 1 << 14  # bytes in which a page may declare its charset; browsers start with 1024, and continue as they parse
SAMPLE = 4_096  # bytes from which a charset is guessed: more take longer and rarely change the guess
_EVIDENCE = 8  # the fewest bytes of a sample that are not ASCII from which a guess means something
SLICE = 1 << 18  # bytes that are decoded at once: Python's codecs hold the GIL, the slowest take about a millisecond

CharsetSource = Literal["bom", "header", "meta", "xml", "detected", "default"]

# The name of each encoding of the standard, Python's codec for it, and the labels besides the name. For some legacy
# encodings Python has a codec that is nearer to the standard than that of the name. The last two are "replacement" in
# the standard, because scripts could be hidden in them; nothing runs here, so they are decoded.
_ENCODINGS = """
utf-8           utf_8        unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf8 x-unicode20utf8
ibm866          cp866        866 cp866 csibm866
iso-8859-2      iso8859_2    csisolatin2 iso-ir-101 iso8859-2 iso88592 iso_8859-2 iso_8859-2:1987 l2 latin2
iso-8859-3      iso8859_3    csisolatin3 iso-ir-109 iso8859-3 iso88593 iso_8859-3 iso_8859-3:1988 l3 latin3
iso-8859-4      iso8859_4    csisolatin4 iso-ir-110 iso8859-4 iso88594 iso_8859-4 iso_8859-4:1988 l4 latin4
iso-8859-5      iso8859_5    csisolatincyrillic cyrillic iso-ir-144 iso8859-5 iso88595 iso_8859-5 iso_8859-5:1988
iso-8859-6      iso8859_6    arabic asmo-708 csiso88596e csiso88596i csisolatinarabic ecma-114 iso-8859-6-e
iso-8859-6      iso8859_6    iso-8859-6-i iso-ir-127 iso8859-6 iso88596 iso_8859-6 iso_8859-6:1987
iso-8859-7      iso8859_7    csisolatingreek ecma-118 elot_928 greek greek8 iso-ir-126 iso8859-7 iso88597 iso_8859-7
iso-8859-7      iso8859_7    iso_8859-7:1987 sun_eu_greek
iso-8859-8      iso8859_8    csiso88598e csisolatinhebrew hebrew iso-8859-8-e iso-ir-138 iso8859-8 iso88598 iso_8859-8
iso-8859-8      iso8859_8    iso_8859-8:1988 visual
iso-8859-8-i    iso8859_8    csiso88598i logical
iso-8859-10     iso8859_10   csisolatin6 iso-ir-157 iso8859-10 iso885910 l6 latin6
iso-8859-13     iso8859_13   iso8859-13 iso885913
iso-8859-14     iso8859_14   iso8859-14 iso885914
iso-8859-15     iso8859_15   csisolatin9 iso8859-15 iso885915 iso_8859-15 l9
iso-8859-16     iso8859_16
koi8-r          koi8_r       cskoi8r koi koi8 koi8_r
koi8-u          koi8_u       koi8-ru
macintosh       mac_roman    csmacintosh mac x-mac-roman
windows-874     cp874        dos-874 iso-8859-11 iso8859-11 iso885911 tis-620
windows-1250    cp1250       cp1250 x-cp1250
windows-1251    cp1251       cp1251 x-cp1251
windows-1252    cp1252       ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1
windows-1252    cp1252       iso88591 iso_8859-1 iso_8859-1:1987 l1 latin1 us-ascii x-cp1252 x-user-defined
windows-1253    cp1253       cp1253 x-cp1253
windows-1254    cp1254       cp1254 csisolatin5 iso-8859-9 iso-ir-148 iso8859-9 iso88599 iso_8859-9 iso_8859-9:1989
windows-1254    cp1254       l5 latin5 x-cp1254
windows-1255    cp1255       cp1255 x-cp1255
windows-1256    cp1256       cp1256 x-cp1256
windows-1257    cp1257       cp1257 x-cp1257
windows-1258    cp1258       cp1258 x-cp1258
x-mac-cyrillic  mac_cyrillic x-mac-ukrainian
gbk             gb18030      chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 iso-ir-58 x-gbk
gb18030         gb18030
big5            big5hkscs    big5-hkscs cn-big5 csbig5 x-x-big5
euc-jp          euc_jp       cseucpkdfmtjapanese x-euc-jp
iso-2022-jp     iso2022_jp   csiso2022jp
shift_jis       cp932        csshiftjis ms932 ms_kanji shift-jis sjis windows-31j x-sjis
euc-kr          cp949        cseuckr csksc56011987 iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601
euc-kr          cp949        windows-949
utf-16be        utf_16_be    unicodefffe
utf-16le        utf_16_le    csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16
iso-2022-kr     iso2022_kr   csiso2022kr
hz-gb-2312      hz
"""
_ROWS = [row.split() for row in _ENCODINGS.strip().splitlines()]
_CODECS = {name: codec for name, codec, *_ in _ROWS}
_NAMES = {label: name for name, _, *labels in _ROWS for label in (name, *labels)}

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_BE, "utf-16be"), (codecs.BOM_UTF16_LE, "utf-16le"))

# The encodings that are guessed for pages that declare nothing and are not UTF-8. All others are too similar to these:
# with them, pages in Western languages would often be taken for Central European ones.
_GUESSED = {
    _CODECS[name]: name
    for name in (
        *("windows-1252", "windows-1251", "koi8-r", "windows-1253", "windows-1255", "windows-1256", "windows-874"),
        *("shift_jis", "euc-jp", "gb18030", "big5", "euc-kr"),
    )
}

_DECLARATION = re.compile(rb"charset", re.IGNORECASE)
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_SPACE = b"\t\n\x0c\r "
_META = re.compile(rb"<meta[\t\n\f\r /]", re.IGNORECASE)
_NAME = re.compile(rb"</?[A-Za-z][^\t\n\f\r >]*")
_PARAMETER = re.compile(r"""(?<=[;,\s])charset\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s;,"']+))""", re.IGNORECASE)
_IN_CONTENT = re.compile(rb"""charset\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s;"'][^\s;]*))""")
_XML = re.compile(rb"""<\?xml[^>]*?encoding[\t\n\r ]*=[\t\n\r ]*(?:"([^">]*)"|'([^'>]*)')""")


class Decoded(NamedTuple):
    """The text of a body.

    Attributes:
        text: without a byte order mark; bytes that are wrong in the charset are U+FFFD.
        charset: the standard's name, in lower case, such as ``"windows-1252"``.
        source: how the charset was found: by the byte order mark, the header, the page's ``meta`` element or XML
            declaration, by its bytes ("detected"), or not at all ("default").
    """

    text: str
    charset: str
    source: CharsetSource


def decode_html(body: bytes, content_type: str | None = None) -> Decoded:
    r"""Return the text of an HTML page, decoded as a browser decodes it.

    A byte order mark wins, then the header, then what the page declares in its first `PRESCAN` bytes
    (https://html.spec.whatwg.org/#determining-the-character-encoding). A page without any of these is UTF-8 if its
    bytes are, apart from a few errors; otherwise the charset is guessed from a part of it; otherwise it is
    windows-1252, as in a browser for Western languages. So is a page that has ASCII only.

    Args:
        body: the decompressed body, or its beginning.
        content_type: the header, if there was one.

    Call on a worker: a page of 100 kB takes well under a millisecond, and a longer one is decoded in slices, between
    which the GIL is released.

    Example:
        >>> decode_html(b"<meta charset=latin1><p>caf\xe9")
        Decoded(text='<meta charset=latin1><p>café', charset='windows-1252', source='meta')
    """
    for mark, name in _MARKS:
        if body.startswith(mark):
            return Decoded(_decode(body[len(mark) :], name), name, "bom")
    if declared := header_charset(content_type):
        return Decoded(_decode(body, declared), declared, "header")
    head = body[:PRESCAN]
    if _DECLARATION.search(head) and (declared := _meta_charset(head)):
        return Decoded(_decode(body, declared), declared, "meta")
    if declared := _xml_charset(head):
        return Decoded(_decode(body, declared), declared, "xml")
    if body.isascii():
        return Decoded(body.decode("ascii"), "windows-1252", "default")
    text = _decode(body, "utf-8")
    errors = text.count("\N{REPLACEMENT CHARACTER}")
    if len(body) - len(text) > errors:  # bytes beyond the first of correct characters; in other charsets they are few
        return Decoded(text, "utf-8", "detected")
    guessed = _guess(body)
    name = guessed or "windows-1252"
    return Decoded(_decode(body, name), name, "detected" if guessed else "default")


def charset_of_label(label: str) -> str | None:
    """Return the standard's name of the encoding with this *label*, or None if there is none.

    Example:
        >>> charset_of_label(" ISO-8859-1"), charset_of_label("utf-7")
        ('windows-1252', None)
    """
    return _NAMES.get(label.strip("\t\n\f\r ").lower())


def header_charset(content_type: str | None) -> str | None:
    """Return the charset that a ``Content-Type`` header declares, or None.

    Example:
        >>> header_charset('text/html; Charset="UTF-8"')
        'utf-8'
    """
    match = _PARAMETER.search(content_type or "")
    return None if match is None else charset_of_label(match[1] or match[2] or match[3] or "")


def _decode(body: bytes, name: str) -> str:
    codec = _CODECS[name]
    if codec == "utf_8" or len(body) <= SLICE:
        return "".join(_pieces(body, codec, max(1, len(body))))
    return "".join(_pieces(body, codec, SLICE))


def _pieces(body: bytes, codec: str, size: int) -> Iterator[str]:
    table = _table(codec)
    decoder = codecs.getincrementaldecoder(codec)("replace")
    for begin in range(0, len(body), size):
        if begin:
            release_gil()
        piece = body[begin : begin + size]
        if table is not None:
            yield codecs.charmap_decode(piece, "replace", table)[0]
        else:
            yield decoder.decode(piece, begin + size >= len(body))


@cache
def _table(codec: str) -> str | None:
    """Return the characters of all bytes in a codec of one byte per character, or None for others.

    Bytes below A0 that Python does not know are control characters in the standard.
    """
    if not codec.startswith(("cp125", "cp866", "cp874", "iso8859", "koi8", "mac")):
        return None
    return "".join(
        chr(number) if character == "\N{REPLACEMENT CHARACTER}" and number < 0xA0 else character
        for number, character in ((number, bytes([number]).decode(codec, "replace")) for number in range(256))
    )


def _guess(body: bytes) -> str | None:
    from charset_normalizer import from_bytes  # here, because few pages need it, and its import takes 20 ms

    first = _NOT_ASCII.search(body)
    begin = 0 if first is None else max(0, first.start() - SAMPLE // 4)
    sample = body[begin : begin + SAMPLE]
    if len(_NOT_ASCII.findall(sample)) < _EVIDENCE:
        return None
    best = from_bytes(sample, cp_isolation=[*_GUESSED]).best()
    name = None if best is None else _GUESSED.get(best.encoding)
    is_same = name is not None and _decode(sample, name) == _decode(sample, "windows-1252")
    return "windows-1252" if is_same else name


def _xml_charset(head: bytes) -> str | None:
    if head.startswith(b"<\0?\0x\0"):
        return "utf-16le"
    if head.startswith(b"\0<\0?\0x"):
        return "utf-16be"
    match = _XML.match(head)
    return None if match is None else _in_ascii(match[1] or match[2] or b"")


def _in_ascii(label: bytes) -> str | None:
    """Return the charset of a *label* that the page itself contains. Such a page cannot be UTF-16."""
    name = charset_of_label(label.decode("latin-1"))
    return "utf-8" if name in {"utf-16be", "utf-16le"} else name


def _meta_charset(head: bytes) -> str | None:
    """Return the charset that a page declares: the "prescan" of the standard.

    https://html.spec.whatwg.org/#prescan-a-byte-stream-to-determine-its-encoding
    """
    at = head.find(b"<")
    while at >= 0:
        if _META.match(head, at):
            attributes, at = _attributes(head, at + 5)
            if charset := _of_attributes(attributes):
                return charset
        else:
            at = _end_of_markup(head, at)
        at = head.find(b"<", at + 1) if at >= 0 else -1
    return None


def _end_of_markup(head: bytes, at: int) -> int:
    """Return the end of the comment, tag or declaration that begins at *at*, or -1 if it is not in *head*."""
    if head.startswith(b"<!--", at):
        end = head.find(b"-->", at + 2)  # the hyphens may be those of the beginning
        return end + 2 if end >= 0 else -1
    if name := _NAME.match(head, at):
        return _attributes(head, name.end())[1]
    return head.find(b">", at) if head[at + 1 : at + 2] in {b"!", b"/", b"?"} else at


def _attributes(head: bytes, at: int) -> tuple[dict[bytes, bytes], int]:
    """Return the attributes of the tag whose name ends at *at*, and the end of the tag; -1 if *head* ends before it."""
    found: dict[bytes, bytes] = {}
    while True:
        at = _skip(head, at, b"\t\n\x0c\r /")
        if head[at : at + 1] == b">":
            return found, at
        begin = at
        while at < len(head) and (head[at] not in b"\t\n\x0c\r />=" or (at == begin and head[at] != 0x3E)):
            at += 1
        name, value = head[begin:at].lower(), b""
        at = _skip(head, at, _SPACE)
        if head[at : at + 1] == b"=":
            value, at = _value(head, _skip(head, at + 1, _SPACE))
        if not 0 <= at < len(head):
            return {}, -1
        found.setdefault(name, value)


def _value(head: bytes, at: int) -> tuple[bytes, int]:
    quote = head[at : at + 1]
    if quote and quote in b"\"'":
        end = head.find(quote, at + 1)
        return (b"", -1) if end < 0 else (head[at + 1 : end].lower(), end + 1)
    begin = at
    while at < len(head) and head[at] not in b"\t\n\x0c\r >":
        at += 1
    return head[begin:at].lower(), at


def _skip(head: bytes, at: int, characters: bytes) -> int:
    while at < len(head) and head[at] in characters:
        at += 1
    return at


def _of_attributes(attributes: dict[bytes, bytes]) -> str | None:
    """Return the charset that the attributes of a ``meta`` element declare."""
    if b"charset" in attributes:
        return _in_ascii(attributes[b"charset"])
    if attributes.get(b"http-equiv") != b"content-type":
        return None
    match = _IN_CONTENT.search(attributes.get(b"content", b""))
    return None if match is None else _in_ascii(match[1] or match[2] or match[3] or b"")
