"""Opening regular files for the node, and removing an activity's directory.

With namespaces the caller's root is the activity's own, so that no path can lead out of it. Without them a
path is resolved first and then opened step by step without following links, so that a link put there
meanwhile is refused, not followed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

_OPEN_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
#: What lies there looks like regular files and is none.
_KERNEL_FILES = ("/proc", "/sys", "/dev")


class Refused(Exception):
    """The path leads where the node must not read or write; the text says why."""


def below(path: str, directories: Sequence[str]) -> bool:
    """Whether `path` is one of the directories or lies in one."""
    return any(path == directory or path.startswith(directory.rstrip("/") + "/") for directory in directories)


def open_file(path: str, *, write: bool, readable: Sequence[str], writable: Sequence[str]) -> int:
    """Descriptor of a regular file; for writing it is made, with its parents, or emptied.

    `path` must be absolute and, with all links resolved, lie in one of the `readable` or `writable`
    directories. Raises `Refused` and `OSError`.
    """
    if not path.startswith("/"):
        raise Refused("the path is not absolute")
    real = os.path.realpath(path)
    allowed = writable if write else readable
    if below(real, _KERNEL_FILES):
        raise Refused("it is the kernel's, not a file of the activity")
    if not below(real, allowed):
        raise Refused(
            f"only files below {', '.join(allowed)} can be {'written' if write else 'read'}"
            + ("" if real == os.path.normpath(path) else f", and this leads to {real}")
        )
    flags = os.O_WRONLY | os.O_CREAT if write else os.O_RDONLY
    fd = _open_without_links(real, flags, make_parents=write)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Refused("it is not a regular file")
        if write:
            os.ftruncate(fd, 0)
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_without_links(real: str, flags: int, *, make_parents: bool) -> int:
    """Open a path that has no links in it; one that has appeared since it was resolved is an error."""
    *parents, name = real.strip("/").split("/")
    if not name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    directory = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for parent in parents:
            step = _step(directory, parent, make=make_parents)
            os.close(directory)
            directory = step
        return os.open(name, flags | os.O_NOFOLLOW | _OPEN_FLAGS, 0o644, dir_fd=directory)
    finally:
        os.close(directory)


def _step(directory: int, name: str, *, make: bool) -> int:
    # A directory may be passable without being readable, where the system tells the two apart.
    flags = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=directory)
    except FileNotFoundError:
        if not make:
            raise
        os.mkdir(name, 0o755, dir_fd=directory)
        return os.open(name, flags, dir_fd=directory)


def remove_tree(top: str) -> None:
    """Remove a directory and all below it, however deep and whatever its permissions. Missing is fine.

    Each directory found is first moved up into `top`, so that paths do not grow with the depth.
    """
    count = 0
    pending = [top]
    try:
        os.chmod(top, 0o700)
    except FileNotFoundError:
        return
    while pending:
        directory = pending.pop()
        moved = []
        with os.scandir(directory) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                os.chmod(entry.path, 0o700)
                if directory == top:
                    moved.append(entry.path)
                    continue
                count += 1
                place = f"{top}/.removing-{count}"
                os.rename(entry.path, place)
                moved.append(place)
        if directory != top:
            os.rmdir(directory)
        pending += moved
    os.rmdir(top)
