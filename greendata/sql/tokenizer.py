"""Split a statement in PostgreSQL's SQL into tokens, to find its verb, its parameters and its end."""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ("Statement",)

_TOKEN = re.compile(
    r"""
      (?P<space>\s+ | --[^\n]*)
    | (?P<comment>/\*)
    | (?P<text>[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*")
    | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
    | (?P<parameter>\$\d+)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<end>;)
    | .
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"/\*|\*/")


class Statement:
    r"""A statement without the semicolons and comments that follow its end.

    A text with several statements stays as it is; PostgreSQL rejects it.

    Attributes:
        verb: the first word in upper case, or the first character that is not white space.
        text: the statement, followed by a line break.

    Example:
        >>> statement = Statement("-- first\nselect $1, ';$2'; -- note")
        >>> statement.verb, statement.with_parameters(lambda number: f"<{number}>")
        ('SELECT', "-- first\nselect <1>, ';$2'\n")
    """

    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._parameters: list[tuple[int, int]] = []  # the start and end of each
        self._length = len(sql)
        self.verb = ""
        self._read()

    @property
    def parameters(self) -> int:
        """The highest number of a parameter, or 0 if there are no parameters."""
        return max((int(self._sql[begin + 1 : end]) for begin, end in self._parameters), default=0)

    @property
    def text(self) -> str:
        """The statement with a line break, which ends a comment in its last line."""
        return self.with_parameters(lambda number: f"${number}")

    def with_parameters(self, func: Callable[[int], str]) -> str:
        """Return the statement with each parameter replaced by what *func* returns for its number."""
        parts, at = [], 0
        for begin, end in self._parameters:
            if end <= self._length:
                parts += [self._sql[at:begin], func(int(self._sql[begin + 1 : end]))]
                at = end
        return "".join([*parts, self._sql[at : self._length], "\n"])

    def _read(self) -> None:
        at, end = 0, None
        while at < len(self._sql):
            found = _TOKEN.match(self._sql, at)
            assert found is not None
            at, kind = found.end(), found.lastgroup
            if kind == "comment":
                at = self._after_comment(at)
            elif kind == "dollar":
                closing = self._sql.find(found[0], at)
                at = len(self._sql) if closing < 0 else closing + len(found[0])
            elif kind == "parameter":
                self._parameters.append(found.span())
            elif kind == "end":
                end = found.start() if end is None else end
            if kind in ("space", "comment", "end"):
                continue
            if end is not None:  # another statement follows
                return
            self.verb = self.verb or found[0].upper()
        if end is not None:
            self._length = end

    def _after_comment(self, at: int) -> int:
        """Return the end of the comment that starts before *at*. Comments can be nested."""
        depth = 1
        while depth:
            found = _COMMENT.search(self._sql, at)
            if found is None:
                return len(self._sql)
            depth += 1 if found[0] == "/*" else -1
            at = found.end()
        return at
