"""Access to the page: authorization, protection of the cancel request, and security headers.

A request to cancel has the page's token twice: in a cookie that browsers do not send with requests of other sites, and
in a header that scripts of other sites cannot set. The page's policy allows its own files and nothing else.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from flask import Response, current_app, request, url_for

__all__ = ("Auth", "has_token", "is_authorized", "set_security_headers", "set_token")

Auth = Callable[[], bool]

COOKIE = "greendata-token"
HEADER = "X-Greendata-Token"
_TOKEN = re.compile(r"[\w-]{43}", re.ASCII)  # the form of `secrets.token_urlsafe(32)`

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


def is_authorized(auth: Auth | None) -> bool:
    """Return True if *auth* returns True for this request. Other values, such as a redirect to a login, deny access.

    Without *auth*, return True in the app's debug mode.
    """
    return current_app.debug if auth is None else auth() is True


def set_token(page: Response) -> Response:
    """Set the token's cookie on the page. An existing token is kept, because other tabs use it."""
    held = request.cookies.get(COOKIE, "")
    page.set_cookie(
        COOKIE,
        held if _TOKEN.fullmatch(held) else secrets.token_urlsafe(32),
        path=url_for("greendata.page"),
        secure=request.is_secure,
        samesite="Strict",
    )
    return page


def has_token() -> bool:
    """Return True if the request comes from the page: the same token in cookie and header, and the same origin."""
    held = request.cookies.get(COOKIE, "")
    shown = request.headers.get(HEADER, "")
    is_ours = request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
    return is_ours and bool(_TOKEN.fullmatch(held)) and secrets.compare_digest(held.encode(), shown.encode())


def set_security_headers(response: Response) -> Response:
    """Set the security headers, which every response of the page has."""
    response.headers.update(HEADERS)
    return response
