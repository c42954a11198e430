"""Paths of the activity as paths of the host, for runtimes that cannot have a root of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence


class PathMap:
    """Puts the host's path in place of the activity's wherever one begins in a text, and back in output.

    Args:
        places: host path by path inside, both absolute.
        stripped: host paths that are taken off in output, so that what is below reads as it does inside.
    """

    def __init__(self, places: Mapping[str, str], stripped: Sequence[str]) -> None:
        self._places = dict(places)
        self._stripped = [path.encode() for path in stripped]
        # Longest first, so that /golem/work wins over /golem. A path begins where no name, path or variable
        # goes on, and ends where the name does.
        names = "|".join(re.escape(path) for path in sorted(places, key=len, reverse=True))
        self._pattern = re.compile(rf"(?<![\w./~}})-])(?:{names})(?![\w-]|\.\w)")

    def inward(self, text: str) -> str:
        """`text` with every path of the activity replaced by the host's."""
        return self._pattern.sub(lambda match: self._places[match[0]], text)

    def readable(self, text: str) -> str:
        """`text`, a message for people, as it reads inside."""
        for path in self._stripped:
            text = text.replace(path.decode(), "")
        return text

    def outward(self, listener: Callable[[bytes], None]) -> Outward:
        """A listener that maps paths in output back before it passes it on to `listener`."""
        return Outward(self._stripped, listener)


class Outward:
    """Takes host paths off a stream of output, also where one is cut in two by the pieces it comes in."""

    def __init__(self, stripped: Sequence[bytes], listener: Callable[[bytes], None]) -> None:
        self._stripped = stripped
        self._listener = listener
        self._held = b""

    def __call__(self, data: bytes) -> None:
        """Take a piece; passes on all but what may be the beginning of a host path."""
        data = self._held + data
        for path in self._stripped:
            data = data.replace(path, b"")
        held = max((_overlap(data, path) for path in self._stripped), default=0)
        self._held = data[len(data) - held :]
        self._pass_on(data[: len(data) - held])

    def flush(self) -> None:
        """Pass on what was held back: nothing more will come."""
        held, self._held = self._held, b""
        self._pass_on(held)

    def _pass_on(self, data: bytes) -> None:
        if data:
            self._listener(data)


def _overlap(data: bytes, path: bytes) -> int:
    """Length of the longest beginning of `path`, short of all of it, with which `data` ends."""
    for length in range(min(len(path) - 1, len(data)), 0, -1):
        if data.endswith(path[:length]):
            return length
    return 0
