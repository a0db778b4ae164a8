"""Parse the addresses of databases, and show them without their secrets."""

from __future__ import annotations

import re
from urllib.parse import unquote, unquote_plus

from greendata.errors import UnknownDatabase

__all__ = ("Conninfo", "looks_like_address", "parse_address")

_SCHEME = re.compile(r"(?s)([A-Za-z][A-Za-z0-9.-]*(?:[+:][A-Za-z0-9.-]+)*)://(.*)")
_HOST = r"(?:\[[^\]/?#@]*\]|[^:/?#@,\[\]]*)(?::[0-9]*)?"
# With a user: name, password, host and path. Without one: host and path, with no possible password. Then the options.
_URL = re.compile(
    r"(?s)postgres(?:ql)?://"
    rf"(?:([^:/?#@]*)(?::([^/?#@]*))?@([^/?#@]*(?:/[^?#@]*)?)|({_HOST}(?:,{_HOST})*(?:/[^?#@]*)?))(?:\?([^#]*))?"
)
_PAIR = re.compile(r"(?s)\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)(?=\s|$)")
# What looks like a password in a text that is not a path.
_LOOKS_SECRET = re.compile(
    r"(?is)(?:^|/)[^/\\]*:[^/\\]*@|@[^/\\]*:[0-9]+(?:/|$)|(?:password|passwd|passphrase|pwd|\b(?:pass|secret|token))\s*="
)
_HOST_AND_PORT = re.compile(r"[\w.-]+:[0-9]+(?:/.*)?")
_HARMLESS = re.compile(r"(?s)[^=;@]*")  # holds no further name=value pair, as after a semicolon, and no address
_SHOWN = frozenset(("host", "hostaddr", "port", "dbname", "user", "sslmode", "connect_timeout", "application_name"))
# The keywords of libpq: postgresql.org/docs/current/libpq-connect.html
_KEYWORDS = (
    "host hostaddr port dbname user sslmode connect_timeout application_name password passfile service servicefile "
    "options client_encoding fallback_application_name keepalives keepalives_idle keepalives_interval "
    "keepalives_count tcp_user_timeout replication gssencmode gsslib krbsrvname gssdelegation requirepeer "
    "sslcompression sslcert sslkey sslpassword sslcertmode sslrootcert sslcrl sslcrldir sslsni sslnegotiation "
    "ssl_min_protocol_version ssl_max_protocol_version target_session_attrs load_balance_hosts channel_binding "
    "require_auth"
)
_STATEMENT = re.compile(r"(?i)\s*(select|insert|update|delete|with|values|create|drop|alter|table|pragma|explain)\s")
_SQLITE_URI = re.compile(r"(?i)(file|sqlite3?):")
_FILE = re.compile(r"(?i).+\.(db3?|sqlite3?|s3db|sl3)$")


class Conninfo:
    """A connection string of PostgreSQL as libpq takes it: a URL or ``host=... dbname=...``.

    Attributes:
        text: the connection string as given; it may hold secrets.
        shown: the connection string without its secrets.

    Example:
        >>> Conninfo("host=db password='two words' dbname=shop").shown
        'host=db password=*** dbname=shop'
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._secrets: list[str] = []
        self._is_parsed = True
        self._is_url = "://" in text.split("=", 1)[0]
        self.shown = self._shown_url() if self._is_url else self._shown_pairs()

    @property
    def for_driver(self) -> str:
        """Return the text for libpq, with UTF-8 as the client encoding whatever encoding the database has."""
        if self._is_url:
            return f"{self.text}{'&' if '?' in self.text else '?'}client_encoding=UTF8"
        return f"{self.text} client_encoding=UTF8"

    def scrubbed(self, message: str) -> str:
        """Return *message* of a driver without the secrets. Drivers quote what they cannot parse."""
        if not self._is_parsed:
            return "the address cannot be read"
        plain = [*self._secrets, *map(unquote, self._secrets), *map(unquote_plus, self._secrets)]
        for secret in sorted(filter(None, [self.for_driver, self.text, *plain]), key=len, reverse=True):
            message = message.replace(secret, "***")
        return message

    def _shown_url(self) -> str:
        found = _URL.fullmatch(self.text)
        if found is None or not _HARMLESS.fullmatch(found[3] or found[4] or ""):
            self._is_parsed = False
            return "postgresql://***"
        user, password, host_and_path, bare, query = found.groups()
        shown = "postgresql://"
        if user is not None:
            shown += user if password is None else f"{user}:***"
            shown += "@"
            self._secrets.append(password or "")
        shown += bare if host_and_path is None else host_and_path
        if query is not None:
            pairs = (part.partition("=") for part in query.split("&"))
            shown += "?" + "&".join(self._shown_pair(name, value) for name, _, value in pairs)
        return shown

    def _shown_pairs(self) -> str:
        pairs = _PAIR.findall(self.text)
        if _PAIR.sub("", self.text).strip():
            self._is_parsed = False
            return "a connection string of PostgreSQL"
        return " ".join(self._shown_pair(name, value) for name, value in pairs)

    def _shown_pair(self, name: str, value: str) -> str:
        if name in _SHOWN and _HARMLESS.fullmatch(value):
            return f"{name}={value}"
        bare = value[1:-1] if value[:1] == "'" else value
        self._secrets += [bare, re.sub(r"(?s)\\(.)", r"\1", bare)]
        if name in _KEYWORDS.split():
            return f"{name}=***"
        self._secrets.append(name)  # the rest of a password, after a character that ended it
        return "***"

    def __repr__(self) -> str:
        return f"<Conninfo {self.shown}>"


def parse_address(text: str) -> str | Conninfo:
    """Return the path of the SQLite file that *text* names, or the connection string of PostgreSQL.

    Raises:
        UnknownDatabase: *text* names neither. The error does not contain its secrets.

    Example:
        >>> parse_address("sqlite:///shop.sqlite"), parse_address("postgresql+psycopg://ann:secret@db/shop")
        ('shop.sqlite', <Conninfo postgresql://ann:***@db/shop>)
    """
    if not text.strip() or "\0" in text:
        raise UnknownDatabase("an empty text" if not text.strip() else "a text with NUL")
    if "://" in text and text != text.strip():
        raise UnknownDatabase("an address with space around it")
    if found := _SCHEME.fullmatch(text):
        scheme, rest = found[1].partition("+")[0].lower(), found[2]
        if scheme in ("postgresql", "postgres"):
            return Conninfo(f"postgresql://{rest}")
        if scheme == "sqlite":
            return _sqlite_path(rest)
        raise UnknownDatabase(f"{scheme}://" if len(scheme) < 30 else "another scheme")
    if (pair := _PAIR.match(text)) and pair[1] in _KEYWORDS.split():
        return Conninfo(text)
    if what := _why_not_a_path(text):
        raise UnknownDatabase(what)
    return text


def _why_not_a_path(text: str) -> str | None:
    """Return a description of *text* if it is most likely not a path, else None."""
    if _LOOKS_SECRET.search(text.lstrip("/\\")):
        return "a text that looks like an address with a password"
    if "://" in text or _HOST_AND_PORT.fullmatch(text):
        return "a text that is not an address"
    if len(_PAIR.findall(text)) > 1 and not _PAIR.sub("", text).strip():
        return "names and values that PostgreSQL does not know"
    if _SQLITE_URI.match(text):
        return "a URI of SQLite; give the path, or a connection of sqlite3"
    if _STATEMENT.match(text):
        return "a statement of SQL: the database comes after it"
    return None


def _sqlite_path(rest: str) -> str:
    if rest in ("", "/", "/:memory:"):
        return ":memory:"
    if not rest.startswith("/"):
        raise UnknownDatabase("sqlite:// with a host; three slashes come before a path, four before an absolute one")
    if "?" in rest:
        raise UnknownDatabase("sqlite:/// with options; give a file whose name has a question mark as a Path")
    return rest[1:]


def looks_like_address(text: str) -> bool:
    """Return True if *text* is more likely the address or the file of a database than the name of a table.

    Example:
        >>> looks_like_address("sales"), looks_like_address("shop.sqlite"), looks_like_address("postgresql://db/shop")
        (False, True, True)
    """
    return "://" in text or _FILE.fullmatch(text) is not None
