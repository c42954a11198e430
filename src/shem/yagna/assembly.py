"""Putting the pieces of an upload in order, whatever order they come in. Pure."""

from __future__ import annotations

import heapq

from shem.errors import TransferError

#: Bytes of pieces that may wait for an earlier one. A provider sends in order, with a few pieces under way at
#: once; one that needs more than this is broken or means harm.
HOLD_LIMIT = 16 * 1024 * 1024


class Assembly:
    """Takes pieces in any order and gives them back as one gapless run of bytes.

    What is sent twice counts once: bytes that were given out already are dropped, so that what is stored and
    what is hashed cannot differ.

    Attributes:
        position: bytes given out so far.
    """

    def __init__(self, hold_limit: int = HOLD_LIMIT) -> None:
        self.position = 0
        self._hold_limit = hold_limit
        self._held: dict[int, bytes] = {}
        self._offsets: list[int] = []  # heap of the keys of `_held`
        self._held_bytes = 0

    @property
    def gap(self) -> tuple[int, int] | None:
        """First and last byte that something waits for; None where nothing is held back."""
        return (self.position, self._offsets[0] - 1) if self._offsets else None

    def add(self, offset: int, content: bytes) -> list[bytes]:
        """Take a piece; return what can be given out now, to be appended in this order.

        Raises `TransferError` where too much would have to wait.
        """
        if offset > self.position:
            self._hold(offset, content)
            return []
        ready = self._advance(offset, content)
        while self._offsets and self._offsets[0] <= self.position:
            earliest = heapq.heappop(self._offsets)
            held = self._held.pop(earliest)
            self._held_bytes -= len(held)
            ready += self._advance(earliest, held)
        return ready

    def _advance(self, offset: int, content: bytes) -> list[bytes]:
        fresh = content[self.position - offset :]
        self.position += len(fresh)
        return [fresh] if fresh else []

    def _hold(self, offset: int, content: bytes) -> None:
        known = self._held.get(offset, b"")
        if len(content) <= len(known):
            return
        self._held_bytes += len(content) - len(known)
        if self._held_bytes > self._hold_limit:
            raise TransferError(
                f"more than {self._hold_limit} bytes came while byte {self.position} is still missing; "
                f"the provider does not send in order"
            )
        if not known:
            heapq.heappush(self._offsets, offset)
        self._held[offset] = content
