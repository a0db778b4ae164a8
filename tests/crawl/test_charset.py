"""Charsets: which of a page's declarations counts, the labels of the standard, and bytes that are wrong.

`CRAWL_FILES` names a folder with the files `encoding/*.dat` of html5lib-tests, whose cases are then run as well.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greendata.crawl.charset import PRESCAN, SLICE, charset_of_label, decode_html, header_charset

pytestmark = pytest.mark.once("patched")  # no thread and no hub takes part

META = b"<meta charset=windows-1251>"

# A body, the header, and the charset with its source.
DECLARED = {
    "nothing, and ASCII": (b"<p>x", None, "windows-1252 default"),
    "nothing, and UTF-8": ("<p>ü".encode(), None, "utf-8 detected"),
    "nothing, and no text": (b"", None, "windows-1252 default"),
    "the header": (b"<p>x", "text/html; charset=koi8-r", "koi8-r header"),
    "the header in quotes": (b"<p>x", 'text/html;Charset="KOI8-R"; a=b', "koi8-r header"),
    "the header before the page": (META, "text/html; charset=koi8-r", "koi8-r header"),
    "a header without sense": (META, "text/html; charset=x-none", "windows-1251 meta"),
    "a header with a codec of Python": (META, "text/html; charset=punycode", "windows-1251 meta"),
    "a header that is all charset": (META, "charset=koi8-r", "windows-1251 meta"),
    "a header with UTF-16": ("x".encode("utf-16-le"), "text/html; charset=utf-16", "utf-16le header"),
    "a mark": (b"\xef\xbb\xbf" + META, "text/html; charset=koi8-r", "utf-8 bom"),
    "a mark of UTF-16": (b"\xff\xfex\0", None, "utf-16le bom"),
    "a mark of the other UTF-16": (b"\xfe\xff\0x", None, "utf-16be bom"),
    "the page": (META, None, "windows-1251 meta"),
    "the page, in capitals": (b"<META CHARSET='WINDOWS-1251' >", None, "windows-1251 meta"),
    "after other tags": (b"<!DOCTYPE html><html><head><title>x</title>" + META, None, "windows-1251 meta"),
    "the old form": (
        b'<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">',
        None,
        "windows-1251 meta",
    ),
    "the old form, turned": (b"<meta content='x;charset = \"koi8-r\"' http-equiv=content-type>", None, "koi8-r meta"),
    "the old form without its name": (b'<meta content="text/html; charset=koi8-r">', None, "windows-1252 default"),
    "the first that makes sense": (b"<meta charset=x-none>" + META, None, "windows-1251 meta"),
    "a meta that is none": (b"<metacharset=koi8-r><meta  charset=koi8-u>", None, "koi8-u meta"),
    "in a comment": (b"<!-- <meta charset=koi8-r> -->" + META, None, "windows-1251 meta"),
    "in a short comment": (b"<!-->" + META, None, "windows-1251 meta"),
    "in a comment without end": (b"<!--" + META, None, "windows-1252 default"),
    "in an attribute": (b"<a title='<meta charset=koi8-r>'>" + META, None, "windows-1251 meta"),
    "in an end tag": (b"</meta charset=koi8-r>" + META, None, "windows-1251 meta"),
    "an attribute without end": (b'<meta charset="koi8-r', None, "windows-1252 default"),
    "UTF-16 in the page itself": (b"<meta charset=utf-16>", None, "utf-8 meta"),
    "x-user-defined": (b"<meta charset=x-user-defined>", None, "windows-1252 meta"),
    "XML": (b"<?xml version='1.0' encoding='koi8-r'?><p>x", None, "koi8-r xml"),
    "XML and the page": (b"<?xml version='1.0' encoding='koi8-r'?>" + META, None, "windows-1251 meta"),
    "XML in UTF-16 without a mark": ("<?xml ?>".encode("utf-16-le"), None, "utf-16le xml"),
    "late in the head": (b" " * (PRESCAN - len(META) - 1) + META, None, "windows-1251 meta"),
    "too late": (b" " * PRESCAN + META, None, "windows-1252 default"),
}


@pytest.mark.parametrize(("body", "header", "expected"), DECLARED.values(), ids=DECLARED.keys())
def test_which_declaration_counts(body: bytes, header: str | None, expected: str) -> None:
    decoded = decode_html(body, header)
    assert f"{decoded.charset} {decoded.source}" == expected


TEXTS = {
    "windows-1251": "Привет, мир. Это страница на русском языке, и она ничего не объявляет.",
    "shift_jis": "日本語のページです。これはテストで、何も宣言していません。",
    "euc-kr": "한국어 페이지입니다. 아무것도 선언하지 않습니다. 테스트입니다.",
    "windows-1252": "Die Straße über den Fluß führt zum Schloß; dort wäre es schön, müßte man nicht zurück.",
    "utf-8": "Die Straße über den Fluß, и по-русски, 日本語",
}


@pytest.mark.parametrize(("charset", "text"), TEXTS.items())
def test_a_page_that_declares_nothing_is_guessed(charset: str, text: str) -> None:
    body = b"<p>" + (text * 3).encode(charset)
    decoded = decode_html(body)
    assert decoded.charset == charset
    assert decoded.text == "<p>" + text * 3


def test_little_evidence_is_no_guess() -> None:
    decoded = decode_html(b"one caf\xe9, and another caf\xe9" + b"x" * 10_000)
    assert (decoded.charset, decoded.source) == ("windows-1252", "default")
    quoted = decode_html(b"it\x92s a \x93quoted\x94 text \x96 with dashes\x85 and more \x93quotes\x94")
    assert quoted.charset == "windows-1252"


def test_utf_8_with_a_few_errors_is_utf_8() -> None:
    body = "Die Straße über den Fluß führt".encode() + b"\xff" + b" und \xc3"
    decoded = decode_html(body)
    assert (decoded.charset, decoded.source) == ("utf-8", "detected")
    assert decoded.text.count("\N{REPLACEMENT CHARACTER}") == 2


@pytest.mark.parametrize(
    ("charset", "body", "text"),
    [
        ("windows-1252", b"\x80\x81\x8d\x9d\xff", "€\x81\x8d\x9dÿ"),  # which Python does not know, and browsers do
        ("iso-8859-1", b"\x93x\x94", "“x”"),
        ("windows-874", b"\x80\x81\xa1\xfc", "€\x81ก\ufffd"),
        ("utf-8", b"a\xffb\xc3", "a\ufffdb\ufffd"),
        ("shift_jis", b"\x87\x40\x81", "①\ufffd"),
        ("gb2312", "㐀".encode("gb18030"), "㐀"),
        ("euc-kr", "똠".encode("cp949"), "똠"),
        ("utf-16", b"x\0\0\xd8y\0z", "x\ufffdy\ufffd"),
    ],
)
def test_bytes_beyond_the_charset(charset: str, body: bytes, text: str) -> None:
    assert decode_html(body, f"text/html; charset={charset}").text == text


@pytest.mark.parametrize("charset", ["utf-8", "gbk", "shift_jis", "utf-16le", "iso-2022-jp", "windows-1251"])
def test_a_long_page_is_decoded_in_slices_without_a_seam(charset: str) -> None:
    text = "x" + "".join(TEXTS["windows-1251"]) * (2 * SLICE // 60)
    assert decode_html(text.encode(charset), f"text/html; charset={charset}").text == text


def test_labels() -> None:
    assert [charset_of_label(label) for label in ("UTF8", " latin1\n", "x-sjis", "unicode-1-1-utf-8", "visual")] == [
        "utf-8",
        "windows-1252",
        "shift_jis",
        "utf-8",
        "iso-8859-8",
    ]
    for unknown in (
        "",
        "utf-7",
        "utf7",
        "utf-32",
        "punycode",
        "idna",
        "zlib",
        "rot13",
        "unicode_escape",
        "cp037",
        "base64",
    ):
        assert charset_of_label(unknown) is None
    assert header_charset(None) is header_charset("text/html; charset=") is None


@given(
    st.binary(max_size=300), st.sampled_from([None, "text/html", "text/html; charset=big5", "text/html; charset=hz"])
)
def test_any_bytes_are_text(body: bytes, header: str | None) -> None:
    text = decode_html(body, header).text
    text.encode()  # there are no lone surrogates


@given(
    st.lists(
        st.sampled_from(
            ["<meta", "<!--", "-->", " ", "charset", "=", '"', "'", ">", "/", "content", "koi8-r", "<", "x"]
        )
    )
)
def test_any_markup_is_scanned_to_its_end(parts: list[str]) -> None:
    assert decode_html("".join(parts).encode()).charset in {"windows-1252", "koi8-r"}


def test_html5libs_own_cases() -> None:
    folder = os.environ.get("CRAWL_FILES")
    if folder is None:
        pytest.skip("CRAWL_FILES names no folder with encoding/*.dat of html5lib-tests")
    count, wrong = 0, []
    for file in sorted(Path(folder).glob("*.dat")):
        for case in file.read_bytes().split(b"#data\n")[1:]:
            body, _, label = case.partition(b"\n#encoding\n")
            count += 1
            if decode_html(body).charset != charset_of_label(label.decode()):
                wrong.append(body)
    print(f"{count - len(wrong)} of {count} cases are as expected")
    assert wrong == []
    assert count > 80
