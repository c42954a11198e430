"""Carries out a plan of mounts: the activity's root file system, made from what the node worked out.

A plan is a list of steps, each a list that begins with its word; paths are absolute and seen from the new
root:

* ``["dir", path]`` and ``["link", path, target]`` make a directory and a symbolic link;
* ``["file", path, text]`` puts a file of that text there, over an existing one where there is one;
* ``["hide", path]`` covers a file or directory with an empty one;
* ``["bind", path, source, kind]`` shows the host's `source` there; kind is ``ro``, ``rw`` or ``dev``;
* ``["tmpfs", path, options]``, ``["proc", path]`` and ``["devpts", path]`` mount a new file system.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from typing import Any

from . import syscalls
from .syscalls import (
    MS_BIND,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
)

_FLAG_OF_OPTION = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME,
    "relatime": MS_RELATIME,
}
#: Parts of /proc through which a process that is root outside could change the host.
_PROC_READ_ONLY = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi")
_STAGE = "/.stage"
_ROOT_FLAGS = MS_NOSUID | MS_NODEV


def make_root(place: str, steps: Sequence[Sequence[Any]]) -> None:
    """Make a root at `place` (any directory of the host; it is mounted over) and move into it.

    The caller must have a mount namespace of its own. Raises `OSError`, which names the step.
    """
    syscalls.mount(None, "/", None, MS_REC | MS_PRIVATE)
    syscalls.mount("tmpfs", place, "tmpfs", _ROOT_FLAGS, "mode=0755,size=16m")
    for step in steps:
        _carry_out(place, step)
    os.chdir(place)
    syscalls.pivot_root_here()
    os.chdir("/")
    syscalls.mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | _ROOT_FLAGS)


def _carry_out(root: str, step: Sequence[Any]) -> None:
    word, path, *rest = step
    target = root + path
    match word:
        case "dir":
            os.makedirs(target, 0o755, exist_ok=True)
        case "link":
            os.symlink(rest[0], target)
        case "bind":
            _bind(rest[0], target, rest[1])
        case "file":
            _file(root, target, rest[0])
        case "hide":
            _hide(root, target)
        case "tmpfs":
            syscalls.mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, rest[0])
        case "proc":
            _proc(target)
        case "devpts":
            _devpts(target)
        case _:
            raise OSError(errno.EINVAL, f"unknown step {word!r}")


def _bind(source: str, target: str, kind: str) -> None:
    if kind == "dev" or not os.path.isdir(source):
        _touch(target)
    syscalls.mount(source, target, None, MS_BIND | MS_REC)
    if kind == "ro":
        _set_read_only(target)


def _touch(target: str) -> None:
    if not os.path.lexists(target):
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _file(root: str, target: str, text: str) -> None:
    if not os.path.lexists(target):
        with open(target, "w", encoding="utf-8") as file:
            file.write(text)
        return
    stage = root + _STAGE
    with open(stage, "w", encoding="utf-8") as file:
        file.write(text)
    syscalls.mount(stage, target, None, MS_BIND)
    _set_read_only(target)
    os.unlink(stage)


def _hide(root: str, target: str) -> None:
    if os.path.isdir(target):
        syscalls.mount("tmpfs", target, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "mode=0700,size=4k")
    else:
        _file(root, target, "")


def _proc(target: str) -> None:
    syscalls.mount("proc", target, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for name in _PROC_READ_ONLY:
        part = f"{target}/{name}"
        if os.path.exists(part):
            syscalls.mount(part, part, None, MS_BIND | MS_REC)
            _set_read_only(part)


def _devpts(target: str) -> None:
    try:
        syscalls.mount(
            "devpts", target, "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"
        )
    except OSError:
        # Terminals inside are a convenience; kernels without them run everything else.
        return


def _set_read_only(target: str) -> None:
    """Make the mount at `target` and all below it read-only."""
    try:
        syscalls.set_read_only(target)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    else:
        return
    for mount_point, options in _mounts_at(target):
        # A remount states all flags anew, and one that the host has set may not be taken away.
        flags = sum(_FLAG_OF_OPTION.get(option, 0) for option in options)
        syscalls.mount(None, mount_point, None, MS_REMOUNT | MS_BIND | MS_RDONLY | (flags & ~MS_RDONLY))


def _mounts_at(target: str) -> list[tuple[str, list[str]]]:
    """Mount points at and below `target`, with their options, from the kernel's table."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields = line.split(" ")
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
            if point == target or point.startswith(target + "/"):
                found.append((point, fields[5].split(",")))
    return found
