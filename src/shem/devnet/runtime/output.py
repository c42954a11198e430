"""The pipe through which one stream of a command's output reaches its listener."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import select
import termios
from collections.abc import Callable

_PIECE = 64 * 1024


class OutputPipe:
    """Reads a pipe as its loop comes round to it, one piece at a time: who writes faster has to wait.

    The write end is for the command: `hand_over` gives it away, once.
    """

    def __init__(self, listener: Callable[[bytes], None]) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._read_end, self._write_end = os.pipe()
        self._open = True
        os.set_blocking(self._read_end, False)
        self._loop.add_reader(self._read_end, self._on_readable)

    def hand_over(self) -> int:
        """The write end, which the caller then owns."""
        return self._write_end

    def finish(self) -> int | None:
        """Deliver what the command wrote before it ended.

        Returns the read end, which the caller then owns, where a process that the command left behind may
        still write; otherwise None.
        """
        if not self._open:
            return None
        self._loop.remove_reader(self._read_end)
        there = array.array("i", [0])
        fcntl.ioctl(self._read_end, termios.FIONREAD, there)
        # What came later is not the command's, and may come without end.
        left = there[0]
        while left > 0 and (data := os.read(self._read_end, min(left, _PIECE))):
            self._listener(data)
            left -= len(data)
        self._open = False
        poll = select.poll()
        poll.register(self._read_end, select.POLLIN)
        if any(events & select.POLLHUP for _fd, events in poll.poll(0)):
            os.close(self._read_end)
            return None
        return self._read_end

    def close(self) -> None:
        """Let go of the read end; nothing is delivered any more. Idempotent."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._read_end)
            os.close(self._read_end)

    def _on_readable(self) -> None:
        try:
            data = os.read(self._read_end, _PIECE)
        except BlockingIOError:
            return
        if data:
            self._listener(data)
        else:
            self.close()
