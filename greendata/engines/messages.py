"""Messages between the engine and its children: pickles over a socket pair, and descriptors of large frames.

Its sockets are native ones, whatever is patched.

A message is its length in 8 bytes, then the pickle. Descriptors travel with the first byte. A frame in a message is
its IPC stream, or the index of a descriptor: a sealed file in memory, which the receiver may map.
"""

from __future__ import annotations

import _socket
import array
import pickle
import struct
from typing import Any

__all__ = ("ConnectionLost", "MAX_INLINE", "receive", "send")

MAX_INLINE = 64 * 1024  # bytes of a frame that travels in the message: a file in memory costs 60 us more
MAX_DESCRIPTORS = 253  # SCM_MAX_FD of Linux

_HEADER = struct.Struct("<Q")


class ConnectionLost(Exception):
    """The other side has closed its end."""


def send(sock: _socket.socket, message: object, descriptors: list[int] | None = None) -> None:
    """Send *message*. Blocks natively while the receiver's buffer is full.

    Raises:
        OSError: the other side has closed its end.
    """
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    data = memoryview(_HEADER.pack(len(body)) + body if len(body) < MAX_INLINE else _HEADER.pack(len(body)))
    if descriptors:
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", descriptors))]
        data = data[sock.sendmsg([data], rights) :]
    sock.sendall(data)
    if len(body) >= MAX_INLINE:
        sock.sendall(body)


def receive(sock: _socket.socket) -> tuple[Any, list[int]]:
    """Return the next message and its descriptors, which belong to the caller. Blocks natively.

    Raises:
        ConnectionLost: the other side has closed its end.
        OSError: the other side has closed its end and has not read all that was sent.
        pickle.UnpicklingError, ValueError and others: this is not a message.
    """
    descriptors = array.array("i")
    space = _socket.CMSG_LEN(MAX_DESCRIPTORS * descriptors.itemsize)
    data, ancillary, _, _ = sock.recvmsg(MAX_INLINE, space, _socket.MSG_CMSG_CLOEXEC)
    for level, kind, rights in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            descriptors.frombytes(rights[: len(rights) - len(rights) % descriptors.itemsize])
    while len(data) < _HEADER.size:
        data += _receive_some(sock, data)
    (size,) = _HEADER.unpack_from(data)
    body = bytearray(data[_HEADER.size :])
    while len(body) < size:
        body += _receive_some(sock, data)
    return pickle.loads(body), list(descriptors)  # both ends are ours


def _receive_some(sock: _socket.socket, before: bytes) -> bytes:
    if not before or not (data := sock.recv(1 << 20)):
        raise ConnectionLost
    return data
