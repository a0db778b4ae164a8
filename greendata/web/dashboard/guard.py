"""Who may see the page, who may press its buttons, and what a browser may do with it.

A request to cancel carries the page's token twice: in a cookie that browsers send to no other site's request, and in
a header that another site's script could not set. The page's policy allows its own files and nothing else.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from flask import Response, current_app, request, url_for

__all__ = ("Auth", "bears_token", "give_token", "harden", "may_enter")

Auth = Callable[[], bool]

COOKIE = "greendata-token"
HEADER = "X-Greendata-Token"
_TOKEN = re.compile(r"[\w-]{43}", re.ASCII)  # what `secrets.token_urlsafe` makes of 32 bytes

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex",
}


def may_enter(auth: Auth | None) -> bool:
    """Does *auth* say True of this request? Anything else is a no: a redirect to a login, say, is no True either.

    Without *auth* the answer is the app's debug mode.
    """
    return current_app.debug if auth is None else auth() is True


def give_token(page: Response) -> Response:
    """Set the token's cookie on the page. A token that is there stays: other tabs have it."""
    held = request.cookies.get(COOKIE, "")
    page.set_cookie(
        COOKIE,
        held if _TOKEN.fullmatch(held) else secrets.token_urlsafe(32),
        path=url_for("greendata.page"),
        secure=request.is_secure,
        samesite="Strict",
    )
    return page


def bears_token() -> bool:
    """Does this request come from the page? Its cookie and its header have the same token, and its origin is ours."""
    held = request.cookies.get(COOKIE, "")
    shown = request.headers.get(HEADER, "")
    is_ours = request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
    return is_ours and bool(_TOKEN.fullmatch(held)) and secrets.compare_digest(held.encode(), shown.encode())


def harden(answer: Response) -> Response:
    """Set the headers that every answer of the page has."""
    answer.headers.update(HEADERS)
    return answer
