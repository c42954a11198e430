"""Output of a program on its way into a result: what is kept of it, and in which form.

Source: contract 3.4.4.
"""

from __future__ import annotations

import codecs

from shem.devnet.commands import CaptureLimits, CaptureMode


class Capture:
    """Keeps the wanted part of one output stream; never more in memory than that part.

    `mode` is None where the output is to be thrown away.
    """

    def __init__(self, mode: CaptureMode | None) -> None:
        streamed = mode.stream if mode is not None else None
        limits = streamed if streamed is not None else (mode.at_end if mode is not None else None)
        self.streamed = streamed is not None
        self._wanted = limits is not None
        self._binary = limits is not None and limits.format in ("bin", "binary")
        self._head_size, self._tail_size = _sizes(limits or CaptureLimits())
        self._head, self._tail = bytearray(), bytearray()
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def add(self, piece: bytes) -> str | list[int] | None:
        """Take a piece. Returns what a listener to the stream is told now, None where that is nothing yet."""
        if not self._wanted or not piece:
            return None
        self._keep(piece)
        if not self.streamed:
            return None
        if self._binary:
            return list(piece)
        try:
            # A character may be cut in two by the pieces' ends: its first part waits for the next piece.
            return self._decoder.decode(piece) or None
        except UnicodeDecodeError:
            self._decoder.reset()
            return piece.decode("latin-1")

    def result(self) -> str | list[int] | None:
        """What was kept, None where nothing was captured or written."""
        kept = bytes(self._head + self._tail)
        if not kept:
            return None
        return list(kept) if self._binary else as_text(kept)

    def _keep(self, piece: bytes) -> None:
        if self._head_size is None:
            self._head += piece
            return
        room = self._head_size - len(self._head)
        self._head += piece[:room]
        self._tail += piece[room:]
        if len(self._tail) > self._tail_size:
            del self._tail[: len(self._tail) - self._tail_size]


def as_text(content: bytes) -> str:
    """UTF-8, or each byte as the code point of its number where it is none."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _sizes(limits: CaptureLimits) -> tuple[int | None, int]:
    """How many bytes of the beginning (None for all) and of the end are kept."""
    if limits.head is not None:
        return limits.head, 0
    if limits.tail is not None:
        return 0, limits.tail
    if limits.head_tail is not None:
        return (limits.head_tail + 1) // 2, limits.head_tail // 2
    if limits.limit is not None:
        return 0, limits.limit
    return None, 0
