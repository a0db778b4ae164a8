"""Files in forms: Werkzeug parses the form, up to a limit, with pauses for other greenlets. No file is left open."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from typing import IO, Any, cast

from flask import request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser
from werkzeug.wsgi import LimitedStream

from greendata.errors import BodyTooLarge, Malformed
from greendata.errors.plural import counted
from greendata.web.received import Received

__all__ = ("uploaded",)

READ_BYTES = 1 << 13  # to parse without a pause: even of tiny parts it has few
NAMED = 5  # fields that an error message names, at most
FORM = "multipart/form-data"


def uploaded(field: str | None, limit: int) -> FileStorage:
    """Return the file in the form of the current request. Flask closes it at the end of the request.

    If the view has read ``request.form`` or ``request.files`` before, the form has been parsed without this limit.

    Args:
        field: the name of its field; None if it is the only file.
        limit: the limit of the whole form in bytes.

    Raises:
        BodyTooLarge: the form is larger than *limit*, or than Flask's limits.
        Malformed: it is not a form, it is cut short, or it has no such file, or several.
    """
    is_default = request.form_data_parser_class is FormDataParser
    if is_default:
        request.form_data_parser_class = partial(_Parser, limit)  # type: ignore[assignment]
    try:
        files = [(name, file) for name, file in request.files.items(multi=True) if file.filename]
    except BodyTooLarge:
        request.stream = cast(IO[bytes], LimitedStream(BytesIO(), 0, is_max=True))  # the rest is not part of the body
        raise
    finally:
        if is_default:
            request.form_data_parser_class = FormDataParser
    chosen = [file for name, file in files if field is None or name == field]
    if len(chosen) == 1:
        return chosen[0]
    expected = "one file" if field is None else f"one file in the field {field!r}"
    names = ", ".join(repr(name[:100]) for name, _ in files[:NAMED])
    found = f"{counted(len(files), 'file')} in the fields {names}" if files else "none"
    raise Malformed(FORM, f"expected {expected}, got {found}")


class _Parser(FormDataParser):
    """A parser of forms that has a limit, and that closes the files of a form that it cannot return."""

    def __init__(self, limit: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.silent = False
        self._limit = limit
        self._files: list[IO[bytes]] = []
        self._make = self.stream_factory
        self.stream_factory = self._make_and_keep

    def parse(self, stream: IO[bytes], *args: Any, **kwargs: Any) -> Any:
        """Parse the form in *stream*, see `FormDataParser`."""
        received = Received(stream, FORM, self._limit)
        try:
            found = self._parsed(received, *args, **kwargs)
            received.check_complete()
        except BaseException:
            for file in self._files:
                file.close()
            raise
        return found

    def _parsed(self, received: Received, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().parse(cast(IO[bytes], _Form(received)), *args, **kwargs)
        except RequestEntityTooLarge as error:  # a text is too large, or there are too many parts
            raise BodyTooLarge(self.max_form_memory_size or self._limit) from error
        except (BodyTooLarge, Malformed):
            raise
        except ValueError as error:
            if not received.is_over:
                raise Malformed(FORM, str(error)) from error
            received.check_complete()
            raise Malformed(FORM, "its last boundary is missing") from error

    def _make_and_keep(self, *args: Any, **kwargs: Any) -> IO[bytes]:
        self._files.append(self._make(*args, **kwargs))
        return self._files[-1]


class _Form:
    """A stream from which a form is read, in small pieces."""

    def __init__(self, received: Received) -> None:
        self._received = received

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most `READ_BYTES`."""
        return self._received.read_some(READ_BYTES if size < 0 else min(size, READ_BYTES))
