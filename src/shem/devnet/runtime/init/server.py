"""The fork server: makes a keeper for each activity, from a process that has everything loaded already.

Starting Python takes some 25 ms and more, forking a small one that runs takes one. The node only ever writes
to the server: ``{"fork": NUMBER}`` with the activity's socket, ``{"kill": NUMBER}`` for a keeper that does
not end, and ``{"leave": true}`` before it closes the socket of its own will.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
from typing import NoReturn

from . import keeper
from .wire import BlockingChannel, Message, close_all

if sys.platform == "linux":
    from . import mounts, syscalls  # noqa: F401  # loaded here once instead of in every activity


def main(control: int, node: int, directory: str) -> NoReturn:
    """Serve until the node closes its end of the socket, or dies.

    Args:
        control: descriptor of the server's end.
        node: the node's process id.
        directory: the common directory of all activities, to be removed after a node that died.
    """
    sock = socket.socket(fileno=control)
    sock.set_inheritable(False)
    os.umask(0o022)
    channel = BlockingChannel(sock)
    try:
        node_fd = _watch(node)
    except ProcessLookupError:
        _leave(directory)
    wake_read, wake_write = os.pipe()
    for fd in (wake_read, wake_write):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    poll = select.poll()
    for fd in (channel.fileno(), wake_read, *([] if node_fd is None else [node_fd])):
        poll.register(fd, select.POLLIN)
    keepers: dict[int, int] = {}
    gc.freeze()
    while True:
        for fd, _events in poll.poll():
            if fd == wake_read:
                os.read(wake_read, 4096)
                _reap(keepers)
                continue
            messages = None if fd == node_fd else channel.receive()
            if messages is None:
                _leave(directory)
            for message, fds in messages:
                _obey(message, fds, keepers, (channel.fileno(), wake_read, wake_write), node_fd)


def _watch(node: int) -> int | None:
    """A descriptor that becomes readable when the node dies; None where the system has no such thing.

    Raises `ProcessLookupError` when it is dead already.

    The end of a socket tells as much, but not while a process that the node has forked holds the other end,
    too.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        fd = os.pidfd_open(node)
    except ProcessLookupError:
        raise
    except OSError:
        return None
    if os.getppid() != node:
        raise ProcessLookupError
    return fd


def _leave(directory: str) -> NoReturn:
    """The node died. While activities are left, the directory is for the last one's keeper to remove."""
    with contextlib.suppress(OSError):
        os.rmdir(directory)
    os._exit(0)


def _obey(
    message: Message, fds: list[int], keepers: dict[int, int], own_fds: tuple[int, ...], node_fd: int | None
) -> None:
    if "leave" in message:
        os._exit(0)
    if "kill" in message:
        pid = keepers.get(message["kill"])
        if pid is not None:
            # It is this process's child and not waited for yet, so the number cannot be anybody else's.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    elif "fork" in message:
        try:
            pid = os.fork()
        except OSError:
            # The node sees its socket end.
            close_all(fds)
            return
        if pid == 0:
            signal.set_wakeup_fd(-1)
            close_all(own_fds)
            keeper.main(fds[0], node_fd)
        keepers[message["fork"]] = pid
    close_all(fds)


def _reap(keepers: dict[int, int]) -> None:
    while keepers:
        pid, _status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        for number in [number for number, keeper_pid in keepers.items() if keeper_pid == pid]:
            del keepers[number]
