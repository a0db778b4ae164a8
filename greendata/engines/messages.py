"""Messages between the engine and its children: pickles over a socket pair, and descriptors of large frames.

The sockets are native ones, whatever gevent has patched.

A message is a mark, its length in 8 bytes, then the pickle. Descriptors travel with the first byte. A frame in a
message is its IPC stream, or the index of a descriptor: a sealed file in memory, which the receiver may map. Anything
else that is written to the socket, for example by a function in the child, has no mark: it is an error, and the rest of
it is not awaited.
"""

from __future__ import annotations

import _socket
import array
import os
import pickle
import struct
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = (
    "ConnectionLost",
    "MAX_DESCRIPTORS",
    "MAX_INLINE",
    "NotAMessage",
    "close_all",
    "dumps",
    "receive",
    "remedy_for",
    "send",
)

MAX_INLINE = 64 * 1024  # bytes of a frame that travels in the message: a file in memory costs 60 us more
MAX_DESCRIPTORS = 253  # SCM_MAX_FD of Linux

_MARK = b"greendat"
_MAX_SIZE = 1 << 40  # bytes of a message
_HEADER = struct.Struct("<8sQ")
_WITHOUT_CLOUDPICKLE = ("AttributeError", "PicklingError", "cloudpickle")  # in the texts of errors


class ConnectionLost(Exception):
    """The other side has closed its end."""


class NotAMessage(Exception):
    """Something other than a message was received."""


def send(
    sock: _socket.socket,
    message: object,
    descriptors: list[int] | None = None,
    wait_to_send: Callable[[], object] | None = None,
) -> None:
    """Send *message*.

    Args:
        descriptors: of files that are sent with it.
        wait_to_send: called while the receiver's buffer is full; returns when it is not full. Without it, the call
            blocks natively.

    Raises:
        OSError: the other side has closed its end.
    """
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    header = _HEADER.pack(_MARK, len(body))
    data = memoryview(header + body if len(body) < MAX_INLINE else header)
    flags = 0 if wait_to_send is None else _socket.MSG_DONTWAIT
    rights = []
    if descriptors:
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", descriptors))]
    for each in [data] if len(body) < MAX_INLINE else [data, memoryview(body)]:
        unsent = each
        while unsent:
            try:
                unsent = unsent[sock.sendmsg([unsent], rights, flags) :]
                rights = []
            except BlockingIOError:
                assert wait_to_send is not None
                wait_to_send()


def receive(
    sock: _socket.socket, wait_for_more: Callable[[], object] | None = None, *, is_one_of_many: bool = False
) -> tuple[Any, list[int]]:
    """Return the next message and its descriptors, which belong to the caller. Blocks natively.

    Args:
        wait_for_more: called before each read but the first; returns when there is more to read.
        is_one_of_many: whether another one may follow at once, which costs one more read. Otherwise that is an error,
            because the other side waits for a reply first.

    Raises:
        ConnectionLost: the other side has closed its end.
        OSError: the other side has closed its end and has not read all that was sent.
        NotAMessage, pickle.UnpicklingError and others: this is not a message.
    """
    rights = array.array("i")
    space = _socket.CMSG_LEN(MAX_DESCRIPTORS * rights.itemsize)
    most = _HEADER.size if is_one_of_many else MAX_INLINE
    data, ancillary, _, _ = sock.recvmsg(most, space, _socket.MSG_CMSG_CLOEXEC)
    for level, kind, found in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            rights.frombytes(found[: len(found) - len(found) % rights.itemsize])
    descriptors = list(rights)
    try:
        return _message(sock, data, wait_for_more), descriptors
    except BaseException:
        close_all(descriptors)
        raise


def _message(sock: _socket.socket, data: bytes, wait_for_more: Callable[[], object] | None) -> Any:
    """Return the message that begins with *data*."""
    if not data:
        raise ConnectionLost
    while data.startswith(_MARK[: len(data)]) and len(data) < _HEADER.size:
        data += _more(sock, wait_for_more, _HEADER.size - len(data))
    if not data.startswith(_MARK):
        raise NotAMessage(data[: _HEADER.size])
    _, size = _HEADER.unpack_from(data)
    if size > _MAX_SIZE:
        raise NotAMessage(data[: _HEADER.size])
    body = bytearray(data[_HEADER.size :])
    while len(body) < size:
        body += _more(sock, wait_for_more, size - len(body))
    if len(body) > size:
        raise NotAMessage(bytes(body[size : size + _HEADER.size]))
    return pickle.loads(body)  # both ends are ours


def _more(sock: _socket.socket, wait_for_more: Callable[[], object] | None, most: int) -> bytes:
    if wait_for_more is not None:
        wait_for_more()
    if not (data := sock.recv(min(most, 1 << 20))):
        raise ConnectionLost
    return data


def close_all(descriptors: list[int]) -> None:
    """Close *descriptors*, which are no longer used."""
    for descriptor in descriptors:
        with suppress(OSError):  # closed already
            os.close(descriptor)


def dumps(value: object) -> bytes:
    """Return *value* as a pickle, made by cloudpickle if that is installed: it can pickle lambdas and local functions.

    Raises:
        Exception: it cannot be pickled.
    """
    try:
        cloudpickle = import_module("cloudpickle")
    except ImportError:
        return pickle.dumps(value)
    packed: bytes = cloudpickle.dumps(value)
    return packed


def remedy_for(error: Exception) -> str:
    """Return what to install to avoid *error*, an error of pickling, as the end of a text; "" if nothing helps.

    Without cloudpickle, functions travel as their names: a lambda has none, and a child cannot import a script.
    """
    text = f"{type(error).__name__}: {error}"
    is_missing = any(word in text for word in _WITHOUT_CLOUDPICKLE) and find_spec("cloudpickle") is None
    return "; install cloudpickle: pip install 'greendata[process]'" if is_missing else ""
