"""How the node and the init program talk: JSON messages and file descriptors over one Unix stream socket.

A frame is the body's length (4 bytes, big-endian), the number of file descriptors that belong to it (1 byte),
and the body, a JSON object. The descriptors travel beside the frame's first byte (SCM_RIGHTS).
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

Message = dict[str, Any]

_HEADER = struct.Struct(">IB")
#: Longest body accepted; a command line cannot be longer than the kernel's few MiB.
MAX_BODY = 16 * 1024 * 1024
_MAX_FDS = 8
_RECEIVE_SIZE = 64 * 1024


class WireError(Exception):
    """The other side sent something that is no frame, or something cannot be made one."""


def encode(message: Message, fds: int = 0) -> bytes:
    """The frame of a message that `fds` descriptors accompany. Raises `WireError` when it is too long."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAX_BODY:
        raise WireError(f"{len(body)} bytes are more than one message may have")
    return _HEADER.pack(len(body), fds) + body


class Decoder:
    """Turns received bytes and descriptors into messages. Raises `WireError` on anything else."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._fds: deque[int] = deque()

    def feed(self, data: bytes, fds: Sequence[int] = ()) -> Iterator[tuple[Message, list[int]]]:
        """Take in what arrived; gives every message that is now whole, with its descriptors."""
        self._data += data
        self._fds.extend(fds)
        if len(self._fds) > _MAX_FDS:
            raise WireError("descriptors came that belong to no frame")
        while len(self._data) >= _HEADER.size:
            length, count = _HEADER.unpack_from(self._data)
            if length > MAX_BODY or count > _MAX_FDS:
                raise WireError(f"a frame of {length} bytes with {count} descriptors is beyond the limits")
            end = _HEADER.size + length
            if len(self._data) < end:
                return
            body = bytes(self._data[_HEADER.size : end])
            del self._data[:end]
            if count > len(self._fds):
                raise WireError(f"a frame promised {count} descriptors and brought {len(self._fds)}")
            own = [self._fds.popleft() for _ in range(count)]
            try:
                message = json.loads(body)
            except (ValueError, RecursionError):
                message = None
            if not isinstance(message, dict):
                close_all(own)
                raise WireError(f"a frame's body is no JSON object: {body[:80]!r}")
            yield message, own

    def close(self) -> None:
        """Close the descriptors that no message has claimed."""
        close_all(self._fds)
        self._fds.clear()


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """One read from the socket: bytes and descriptors (not inheritable). No bytes mean its end."""
    room = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)
    # Absent where the system cannot set the flag in the same step (macOS).
    cloexec = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    data, ancillary, _flags, _address = sock.recvmsg(_RECEIVE_SIZE, room, cloexec)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if not cloexec:
        for fd in fds:
            os.set_inheritable(fd, False)
    return data, list(fds)


def close_all(fds: Sequence[int] | deque[int]) -> None:
    """Close descriptors, whichever of them are still open."""
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            continue


class BlockingChannel:
    """The init program's end of the wire."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decoder = Decoder()

    def fileno(self) -> int:
        """The socket's descriptor, to poll."""
        return self._sock.fileno()

    def receive(self) -> list[tuple[Message, list[int]]] | None:
        """Wait for bytes; the messages they complete (maybe none yet), or None at the end of the wire."""
        try:
            data, fds = receive(self._sock)
        except ConnectionError:
            return None
        if not data:
            return None
        return list(self._decoder.feed(data, fds))

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send a message. A wire whose other end is gone swallows it: its end is seen by `receive`."""
        frame = encode(message, len(fds))
        try:
            sent = socket.send_fds(self._sock, [frame], fds) if fds else 0
            self._sock.sendall(frame[sent:])
        except (BrokenPipeError, ConnectionError):
            return

    def shut_down(self) -> None:
        """End the wire in both directions, for every process that holds this end of it."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
