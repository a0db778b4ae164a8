"""Errors as HTTP answers: a status, and problem details in JSON (RFC 9457) that tell the client what it can do.

What the client did wrong is quoted; what went wrong on this side has its status and a title, and no more.
"""

from __future__ import annotations

import json
from random import randint
from typing import Any

from flask import Response
from werkzeug.http import HTTP_STATUS_CODES

from greendata.errors import (
    BodyInvalid,
    BodyTooLarge,
    BodyUnsupported,
    DeadlineExceeded,
    FormatUnknown,
    GreenDataError,
    JobCancelled,
    Malformed,
    NotAcceptable,
    PoolClosed,
    PoolFull,
    ResultTimeout,
)
from greendata.errors.plural import counted
from greendata.web import drain
from greendata.web.scope import current_scope

__all__ = ("answer_to", "problem")

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = (2, 6)  # seconds, the whole numbers between at random: clients that were turned away together spread out
FAILURES = 100  # of invalid data that are listed; all are counted
CLIENT_CLOSED_REQUEST = 499  # nginx's number, for the log: nobody reads this answer

# What the client has done, and may read about.
_ITS_OWN: tuple[tuple[type[GreenDataError], int, str], ...] = (
    (FormatUnknown, 400, "There is no such format"),
    (Malformed, 400, "The body cannot be read"),
    (NotAcceptable, 406, "There is no format that the client accepts"),
    (BodyTooLarge, 413, "The body is too large"),
    (BodyUnsupported, 415, "The body is of a kind that is not read here"),
)


def problem(status: int, title: str, detail: str = "", **more: Any) -> Response:
    """An answer with problem details (RFC 9457): ``application/problem+json``.

    Args:
        status: the HTTP status.
        title: what kind of problem it is, the same each time.
        detail: what happened this time.
        more: further members; values that JSON can hold.

    Example:
        >>> problem(503, "The server is busy").get_json(force=True)["status"]
        503
    """
    members = {"type": "about:blank", "title": title, "status": status}
    if detail:
        members["detail"] = detail
    text = json.dumps(members | more, default=str)
    return Response(text, status=_status_line(status), content_type=MEDIA_TYPE)


def answer_to(error: GreenDataError) -> Response:
    """The answer to *error*, in the request that it was raised in.

    Raises:
        GreenDataError: *error* itself, if it is a fault of the service: a 500 that belongs in its log.

    Example:
        >>> from greendata.errors import PoolFull
        >>> answer_to(PoolFull(50, 50)).status
        '503 SERVICE UNAVAILABLE'
    """
    for kind, status, title in _ITS_OWN:
        if isinstance(error, kind):
            return problem(status, title, _detail(error), **_members(error))
    if isinstance(error, BodyInvalid):
        return _invalid(error)
    if isinstance(error, DeadlineExceeded | ResultTimeout):
        return problem(504, "The answer took too long")
    if isinstance(error, PoolFull):
        return _try_again("The server is busy")
    if isinstance(error, PoolClosed):
        return _try_again("The server is shutting down")
    if isinstance(error, JobCancelled) and (scope := current_scope()) is not None and scope.is_left:
        return Response(status=_status_line(CLIENT_CLOSED_REQUEST))
    if isinstance(error, JobCancelled) and error.message == drain.REASON:
        return _try_again("The server is shutting down")
    raise error


def _try_again(title: str) -> Response:
    answer = problem(503, title)
    answer.headers["Retry-After"] = str(randint(*RETRY_AFTER))
    return answer


def _invalid(error: BodyInvalid) -> Response:
    rows = error.failures.head(FAILURES).to_dicts()
    detail = counted(error.failures.height, "failure")
    if error.failures.height > FAILURES:
        detail += f", the first {FAILURES} are listed"
    return problem(422, "The data is invalid", detail, failures=rows)


def _detail(error: GreenDataError) -> str:
    """What happened, for the client: of options of this side it hears nothing."""
    if isinstance(error, BodyTooLarge):
        return f"the body has more than {counted(error.limit, 'byte')}, which is the limit; send less"
    return str(error)


def _members(error: GreenDataError) -> dict[str, Any]:
    """What a program may want to know of the error."""
    if isinstance(error, BodyTooLarge):
        return {"limit": error.limit}
    available = getattr(error, "available", None)
    return {} if available is None else {"available": list(available)}


def _status_line(status: int) -> str:
    names = {CLIENT_CLOSED_REQUEST: "Client Closed Request", **HTTP_STATUS_CODES}
    return f"{status} {names[status].upper()}"
