"""Where bytes come from and go to on the requestor's side: the concrete sources and sinks of a transfer.

Nothing here knows how bytes travel. Reads and writes are synchronous: a transfer moves pieces of 40 KiB, for
which a hand-over to a thread would cost more than it saves.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol, runtime_checkable

from shem.errors import Blame, TransferError

#: How many leftover temporary files of one target are stepped over before giving up.
_MAX_LEFTOVERS = 1000


@runtime_checkable
class Discardable(Protocol):
    """A sink that has something to clear away when its transfer is given up."""

    def discard(self) -> None:
        """Forget what was written. Harmless after `finish`, and when called twice."""


class BytesSource:
    """Bytes that are in memory already."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        # A copy of what can change, so that a transfer never mixes two versions; bytes are kept as they are.
        self._data = bytes(data)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.size} bytes>"

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; none beyond the end. Neither may be negative."""
        _check_range(self, offset, length)
        return self._data[offset : offset + length]


class FileSource:
    """A file on this machine, as it is when the source is made.

    Raises `TransferError` where it is missing, unreadable or no regular file, and from `read` where it was
    changed, replaced or removed meanwhile: a provider never gets a mixture of two versions. No file is held
    open between reads.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        handle = self._open()
        try:
            self._version = _version(handle)
        finally:
            os.close(handle)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self.path)!r} of {self.size} bytes>"

    @property
    def size(self) -> int:
        """How many bytes the file had when the source was made."""
        return self._version[2]

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; none beyond the end."""
        _check_range(self, offset, length)
        handle = self._open()
        try:
            if _version(handle) != self._version:
                raise _local_error(f"file {self.path} was changed while it was being sent; send it again")
            # One call may read less than asked for, though on regular files only at the end.
            pieces = []
            while length > 0 and (piece := os.pread(handle, length, offset)):
                pieces.append(piece)
                offset, length = offset + len(piece), length - len(piece)
            return b"".join(pieces)
        except OSError as error:
            raise _local_error(f"file {self.path} cannot be read at byte {offset}: {_said(error)}") from error
        finally:
            os.close(handle)

    def _open(self) -> int:
        try:
            # Without O_NONBLOCK a named pipe would stop the whole event loop right here.
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            raise _local_error(f"file {self.path} cannot be sent: {_said(error)}") from error
        if not os.path.isfile(handle):
            os.close(handle)
            raise _local_error(f"{self.path} cannot be sent: it is no regular file")
        return handle


class BytesSink:
    """Collects what a provider sends in memory.

    Args:
        limit: most bytes to take; None for no limit. A piece that goes beyond is refused with a
            `TransferError`, and nothing of it is kept.
    """

    def __init__(self, limit: int | None = None) -> None:
        if limit is not None and limit < 0:
            raise TransferError(f"a limit of {limit} bytes has no meaning; give 0 or more, or None")
        self.limit = limit
        self._data = bytearray()
        self._finished = False

    def __repr__(self) -> str:
        limit = "" if self.limit is None else f", at most {self.limit}"
        return f"<{type(self).__name__} with {len(self._data)} bytes{limit}>"

    def write(self, offset: int, content: bytes) -> None:
        """Store a piece; pieces come in any order, a gap reads as zeros until it is filled."""
        _check_range(self, offset, len(content))
        _check_open(self, self._finished)
        end = offset + len(content)
        if self.limit is not None and end > self.limit:
            raise _local_error(
                f"the provider sends more than the {self.limit} bytes allowed (a piece ends at byte {end}); "
                f"raise the limit, or take the content into a file"
            )
        if end > len(self._data):
            self._data.extend(bytes(end - len(self._data)))
        self._data[offset:end] = content

    def finish(self) -> None:
        """All pieces are there. Harmless when called twice."""
        self._finished = True

    def discard(self) -> None:
        """Give the memory back, unless finished."""
        if not self._finished:
            self._data.clear()

    def content(self) -> bytes:
        """What was sent. Raises `TransferError` before it is complete."""
        if not self._finished:
            raise TransferError(f"the content is not complete; {len(self._data)} bytes came so far")
        return bytes(self._data)


class FileSink:
    """Takes what a provider sends into a file, which appears under its name only when it is complete.

    Pieces are written to a temporary file beside the target (``.<name>.<n>.part``), made with the first of
    them; `finish` renames it over whatever the target was. A sink that is discarded, or dropped without
    `finish`, removes it. Raises `TransferError` where the file system refuses, and when made for a path that
    names no file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.name or self.path.is_dir() or "\0" in self.path.name:
            raise _local_error(f"{str(self.path)!r} cannot be written: it is no name of a file")
        self._part: Path | None = None
        self._handle = -1
        self._finished = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self.path)!r}>"

    def __del__(self) -> None:
        # Last resort for a transfer that nobody closed: neither descriptor nor temporary file stays behind.
        if getattr(self, "_part", None) is not None:
            self.discard()

    def write(self, offset: int, content: bytes) -> None:
        """Store a piece; pieces come in any order."""
        _check_range(self, offset, len(content))
        _check_open(self, self._finished)
        self._open()
        try:
            view = memoryview(content)
            while view:
                written = os.pwrite(self._handle, view, offset)
                offset, view = offset + written, view[written:]
        except OSError as error:
            raise _local_error(f"cannot write {self.path} at byte {offset}: {_said(error)}") from error

    def finish(self) -> None:
        """All pieces are there: give the file its name. Harmless when called twice."""
        if self._finished:
            return
        part = self._open()
        try:
            os.replace(part, self.path)
        except OSError as error:
            raise _local_error(
                f"the content for {self.path} is complete, but cannot be put there: {_said(error)}"
            ) from error
        self._finished = True
        self._part = None
        self._close()

    def discard(self) -> None:
        """Remove the temporary file, unless finished."""
        part, self._part = self._part, None
        self._close()
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink()

    def _open(self) -> Path:
        if self._part is None:
            self._part, self._handle = self._make_part()
        return self._part

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def _make_part(self) -> tuple[Path, int]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        # Cut, so that a target whose name is as long as names may be still has room for the rest.
        stem = self.path.name[:50]
        for number in range(_MAX_LEFTOVERS):
            part = self.path.with_name(f".{stem}.{number}.part")
            try:
                return part, os.open(part, flags, 0o666)
            except FileExistsError:
                continue  # another transfer to the same target, or a leftover of a killed program
            except OSError as error:
                raise _local_error(f"cannot write {self.path}: {_said(error)}") from error
        raise _local_error(
            f"cannot write {self.path}: {_MAX_LEFTOVERS} temporary files .{stem}.*.part lie there already; "
            f"remove those that no transfer uses"
        )


def _version(handle: int) -> tuple[int, int, int, int]:
    """What tells one version of a file from another: device, inode, size, time of the last change."""
    status = os.fstat(handle)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _check_range(owner: object, offset: int, length: int) -> None:
    if offset < 0 or length < 0:
        raise TransferError(f"{owner!r} was asked for {length} bytes at {offset}; neither can be negative")


def _check_open(owner: object, finished: bool) -> None:
    if finished:
        raise TransferError(f"{owner!r} is finished and takes no more; use a new sink for every transfer")


def _local_error(message: str) -> TransferError:
    """An error of this side's file or limit, which another provider would meet just the same."""
    error = TransferError(message)
    error.blame = Blame.USER
    return error


def _said(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
