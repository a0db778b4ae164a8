"""An HTTPS server on loopback, with a certificate that signs itself."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gevent.pywsgi import WSGIServer
from gevent.ssl import SSLContext

__all__ = ("CSV", "Served", "serving_tls")

# For 127.0.0.1 and 127.0.0.2, until 2126; it signs itself. openssl req -x509 -newkey ec -nodes ...
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQguJGVaACPrDbsrDR+
TzU3oKG+cvUbBVxMhkPr/o5qmNKhRANCAASHD83uWkAbhHHBcLCnGeAG9C3r7igE
f+FqeLZ+fnDSMbrAxzLxhOrDJWBGefzPIc6UKUSikpV4ilRPm4eOickZ
-----END PRIVATE KEY-----
"""
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBzTCCAXSgAwIBAgIUA7vzSk930SaexqJFKg3lo3c7l6EwCgYIKoZIzj0EAwIw
KDEmMCQGA1UEAwwdbG9vcGJhY2sgb2YgZ3JlZW5kYXRhJ3MgdGVzdHMwIBcNMjYx
MTI5MTc0ODEyWhgPMjEyNjExMDUxNzQ4MTJaMCgxJjAkBgNVBAMMHWxvb3BiYWNr
IG9mIGdyZWVuZGF0YSdzIHRlc3RzMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
hw/N7lpAG4RxwXCwpxngBvQt6+4oBH/hani2fn5w0jG6wMcy8YTqwyVgRnn8zyHO
lClEopKVeIpUT5uHjonJGaN6MHgwHQYDVR0OBBYEFPdXDBrdT8epzTj2km4Z5Eu8
jZ+NMB8GA1UdIwQYMBaAFPdXDBrdT8epzTj2km4Z5Eu8jZ+NMBUGA1UdEQQOMAyH
BH8AAAGHBH8AAAIwDwYDVR0TAQH/BAUwAwEB/zAOBgNVHQ8BAf8EBAMCAoQwCgYI
KoZIzj0EAwIDRwAwRAIgA63kwf4AcXRIdabVd3XvdKLaqewjGq9mUrKapkoTxIcC
IBVQ8WRkXHTOmzSrgkfxE656vSz9VA+tTzGoJdvkx4/w
-----END CERTIFICATE-----
"""


CSV = b"a,b\n1,2\n"


@dataclass
class Served:
    """A running HTTPS server.

    Attributes:
        url: its URL, with a slash at the end.
        port: its port.
        certificates: the path of the certificate that a client has to trust.
        asked: the paths of the requests.
        names: the host names in the handshakes.
    """

    url: str
    port: int
    certificates: str
    asked: list[str] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)

    def trust(self, session: Any) -> None:
        """Make a session of requests trust the server."""
        session.verify = self.certificates


class _Server(WSGIServer):
    def wrap_socket_and_handle(self, client_socket: Any, address: object) -> object:
        with suppress(OSError):  # the client has hung up before the handshake, or during it
            return super().wrap_socket_and_handle(client_socket, address)
        return None


@contextmanager
def serving_tls(folder: Path, host: str) -> Iterator[Served]:
    """Serve `CSV` over HTTPS, in greenlets of the calling thread. The certificate is for addresses, not for a name."""
    for name, text in (("key.pem", KEY), ("certificate.pem", CERTIFICATE)):
        (folder / name).write_text(text, encoding="ascii")
    served = Served("", 0, str(folder / "certificate.pem"))

    def respond(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        served.asked.append(environ["PATH_INFO"])
        start_response("200 OK", [("Content-Type", "text/csv"), ("Content-Length", str(len(CSV)))])
        return [CSV]

    context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(served.certificates, str(folder / "key.pem"))
    context.sni_callback = lambda _sock, name, _context: served.names.append(name)
    server = _Server((host, 0), respond, log=None, error_log=None, ssl_context=context)
    server.start()
    served.port = server.server_port
    served.url = f"https://{host}:{served.port}/"
    try:
        yield served
    finally:
        server.stop()
