"""The outer process of an activity: makes the namespaces, forks process 1, and clears up when that has ended.

It stays outside the activity's PID and mount namespaces, so that it can remove the activity's directory. It
outlives the node just long enough to do so: it sees the node's death, however sudden, by its process
descriptor and by the end of the activity's socket. Its own death kills process 1, and with that the kernel
kills the rest.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import sys
import traceback
from dataclasses import dataclass, field
from typing import Any, NoReturn

from . import files
from .commands import Init, end_descendants
from .wire import BlockingChannel

#: Seconds that process 1 gets to end everything in order once the node is gone.
_ORDERLY_END = 3.0
#: What root may do in a container by common consent: nothing that reaches beyond its own files and processes.
_KEPT_CAPABILITIES = frozenset(
    (
        0,  # CHOWN
        1,  # DAC_OVERRIDE
        3,  # FOWNER
        4,  # FSETID
        5,  # KILL
        6,  # SETGID
        7,  # SETUID
        8,  # SETPCAP
        10,  # NET_BIND_SERVICE
        13,  # NET_RAW
        18,  # SYS_CHROOT
        29,  # AUDIT_WRITE
        31,  # SETFCAP
    )
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the node wants made, as it comes over the wire.

    `directory` is the activity's own on the host, with the sub-directories `folders` (mode by name) and the
    symbolic `links` (target by name) in it; `steps` are the mounts (see `mounts`), to be made at `place`, any
    directory. `addresses` are IPv4 addresses by which the activity reaches itself. `readable` and `writable`
    bound what the node can open. `must_run` is a program that must be there in the end; `try_only` asks for
    the end right after everything has been set up.
    """

    namespaces: bool
    directory: str | None = None
    folders: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    place: str = "/"
    steps: list[list[Any]] = field(default_factory=list)
    hostname: str = ""
    addresses: list[str] = field(default_factory=list)
    readable: list[str] = field(default_factory=list)
    writable: list[str] = field(default_factory=list)
    must_run: str | None = None
    try_only: bool = False


def main(control: int, node_fd: int | None) -> NoReturn:
    """Serve one activity over the socket with the descriptor `control`; never returns.

    `node_fd` becomes readable when the node dies.
    """
    channel = BlockingChannel(socket.socket(fileno=control))
    try:
        _keep(channel, node_fd)
    except BaseException:
        # Nothing may run on into the fork server's code. The node is told, for there is nobody else to tell.
        channel.send({"crashed": traceback.format_exc()})
        os._exit(1)
    # Not by way of Python's own end: the node takes the end of the socket as the end of this process.
    os._exit(0)


def _keep(channel: BlockingChannel, node_fd: int | None) -> None:
    plan = _first_message(channel)
    if plan is None:
        return
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    node_is_there = True
    try:
        _prepare(plan)
        lifeline_read, lifeline_write = os.pipe()
        keeper = os.getpid()
        inner = os.fork()
        if inner == 0:
            signal.set_wakeup_fd(-1)
            for fd in (lifeline_write, wake_read, wake_write, *([] if node_fd is None else [node_fd])):
                os.close(fd)
            _be_process_one(channel, plan, lifeline_read, keeper)
        os.close(lifeline_read)
        status, node_is_there = _wait_for(inner, channel, wake_read, node_fd)
        end_descendants()
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        last: dict[str, Any] = {
            "ended": os.waitstatus_to_exitcode(status),
            "total": usage.ru_utime + usage.ru_stime,
        }
    except OSError as error:
        last = {"failed": _text(error)}
    _remove(plan, with_parent=not node_is_there)
    channel.send(last)


def _first_message(channel: BlockingChannel) -> Plan | None:
    """The plan, or None when the node goes away first. It sends nothing else before it has the answer."""
    while (messages := channel.receive()) is not None:
        for message, _fds in messages:
            return Plan(**message)
    return None


def _prepare(plan: Plan) -> None:
    """What is done before process 1 is forked. Raises `OSError`."""
    if plan.directory is not None:
        os.mkdir(plan.directory, 0o700)
        for folder, mode in plan.folders.items():
            os.makedirs(f"{plan.directory}/{folder}", exist_ok=True)
            os.chmod(f"{plan.directory}/{folder}", mode)
        for link, target in plan.links.items():
            os.symlink(target, f"{plan.directory}/{link}")
    if plan.namespaces:
        _leave_namespaces()
    elif sys.platform == "linux":
        from . import syscalls

        syscalls.adopt_orphans()


def _leave_namespaces() -> None:
    from . import syscalls

    user, group = os.geteuid(), os.getegid()
    syscalls.unshare(
        syscalls.CLONE_NEWUSER
        | syscalls.CLONE_NEWPID
        | syscalls.CLONE_NEWNET
        | syscalls.CLONE_NEWIPC
        | syscalls.CLONE_NEWUTS
    )
    # A group map may be written without privileges only after the right to change groups is given up.
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _be_process_one(channel: BlockingChannel, plan: Plan, lifeline: int, keeper: int) -> NoReturn:
    try:
        try:
            _enter(plan)
        except OSError as error:
            channel.send({"failed": _text(error)})
            os._exit(1)
        channel.send({"ready": keeper})
        if not plan.try_only:
            Init(
                channel,
                lifeline,
                own_pids=plan.namespaces,
                readable=plan.readable,
                writable=plan.writable,
            ).serve()
        os._exit(0)
    except BaseException:
        # It must not run on into the keeper's code.
        channel.send({"crashed": traceback.format_exc()})
        os._exit(1)


def _enter(plan: Plan) -> None:
    """The part of the setting-up that process 1 does for itself. Raises `OSError`."""
    if sys.platform == "linux":
        from . import mounts, syscalls

        if plan.namespaces:
            syscalls.die_with_parent(signal.SIGKILL)
            syscalls.unshare(syscalls.CLONE_NEWNS)
            mounts.make_root(plan.place, plan.steps)
            syscalls.set_hostname(plan.hostname)
            syscalls.bring_up_loopback(plan.addresses)
            syscalls.keep_capabilities(_KEPT_CAPABILITIES)
            syscalls.forbid_tracing()
        else:
            syscalls.adopt_orphans()
    if plan.must_run is not None and not os.access(plan.must_run, os.R_OK | os.X_OK):
        raise OSError(f"the running Python, {plan.must_run}, cannot be run in there")


def _wait_for(inner: int, channel: BlockingChannel, wake: int, node_fd: int | None) -> tuple[int, bool]:
    """Wait for process 1, which gets a moment and is then killed when the node goes first.

    Its wait status, and whether the node is still there.
    """
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    # Only the end of the wire is of interest here: its messages are process 1's.
    poll.register(channel.fileno(), 0)
    if node_fd is not None:
        poll.register(node_fd, select.POLLIN)
    patience: float | None = None
    while True:
        pid, status = os.waitpid(inner, os.WNOHANG)
        if pid:
            return status, patience is None
        events = poll.poll(patience)
        if not events:
            with contextlib.suppress(ProcessLookupError):
                os.kill(inner, signal.SIGKILL)
        for fd, _flags in events:
            if fd == wake:
                os.read(wake, 4096)
                continue
            poll.unregister(fd)
            if fd == node_fd:
                # Process 1 sees the end of the socket, unless something that the node forked still holds it.
                channel.shut_down()
            patience = _ORDERLY_END * 1000


def _remove(plan: Plan, *, with_parent: bool) -> None:
    if plan.directory is None:
        return
    # Whether anything is left, the node sees for itself.
    with contextlib.suppress(OSError):
        files.remove_tree(plan.directory)
        if with_parent:
            # Nobody else will: the last activity of a node that died takes the common directory along.
            os.rmdir(os.path.dirname(plan.directory))


def _text(error: OSError) -> str:
    text = error.strerror or str(error)
    return text if error.filename is None else f"{text}: {error.filename}"
