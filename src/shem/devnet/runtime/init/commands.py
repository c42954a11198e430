"""Process 1 of an activity: starts commands, reaps, opens files, reports.

It never touches a command's output: the node hands over the write ends of the pipes and reads the other ends
itself, so that a flood of output fills a pipe and stops its writer, and nothing else.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any

from . import files, procs
from .wire import BlockingChannel, Message, close_all

#: Seconds between two reports of CPU time while anything lives.
REPORT_INTERVAL = 1.0
#: Least difference worth a report, in seconds of CPU time.
_REPORT_STEP = 0.01
#: Open files that a command may have, where the host allows that many.
_OPEN_FILES = 4096
_DISCARD_SIZE = 64 * 1024
#: How often descendants are searched and killed before giving up on one that forks faster.
_KILL_ROUNDS = 100


class Init:
    """Serves one activity until the node says stop or goes away.

    `own_pids` says that this is process 1 of a PID namespace. `lifeline` is a pipe that ends when the keeper
    does.
    """

    def __init__(
        self,
        channel: BlockingChannel,
        lifeline: int,
        *,
        own_pids: bool,
        readable: Sequence[str],
        writable: Sequence[str],
    ) -> None:
        self._channel = channel
        self._lifeline = lifeline
        self._own_pids = own_pids
        self._readable, self._writable = readable, writable
        self._running: dict[int, int] = {}
        self._reported, self._reported_at = 0.0, time.monotonic()
        self._poll = select.poll()
        self._discarded: set[int] = set()
        self._stopping = False

    def serve(self) -> None:
        """Until the end: then every process of the activity is dead and its CPU time reported."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for fd in (self._channel.fileno(), self._lifeline, wake_read):
            self._poll.register(fd, select.POLLIN)
        while not self._stopping:
            alive = self._reap()
            for fd, _events in self._poll.poll(REPORT_INTERVAL * 1000 if alive else None):
                if fd == wake_read:
                    os.read(wake_read, 4096)
                elif fd == self._lifeline:
                    self._stopping = True
                elif fd == self._channel.fileno():
                    self._receive()
                else:
                    self._discard(fd)
            if alive and time.monotonic() - self._reported_at >= REPORT_INTERVAL:
                self._report()
        self._kill_everything()
        self._report(always=True)

    def _receive(self) -> None:
        messages = self._channel.receive()
        if messages is None:
            self._stopping = True
            return
        for message, fds in messages:
            try:
                self._obey(message, fds)
            finally:
                close_all(fds)

    def _obey(self, message: Message, fds: list[int]) -> None:
        match message["op"]:
            case "run":
                self._run(message, fds)
            case "kill":
                self._kill(message["id"])
            case "open":
                self._open(message)
            case "socket":
                self._socket(message)
            case "usage":
                self._channel.send({"id": message["id"], **self._usage()})
            case "discard":
                self._discard_from(fds.pop())
            case "stop":
                self._stopping = True

    def _run(self, message: Message, fds: list[int]) -> None:
        try:
            pid = self._spawn(message["argv"], message["env"], message["cwd"], fds)
        except OSError as error:
            self._channel.send({"id": message["id"], "error": error.strerror, "errno": error.errno})
            return
        self._running[pid] = message["id"]

    def _spawn(self, argv: list[str], env: dict[str, str], cwd: str, fds: list[int]) -> int:
        """Start a program; its pid once it really runs. Raises `OSError` where it cannot be started."""
        failure_read, failure_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                self._become(argv, env, cwd, fds)
            except OSError as error:
                os.write(failure_write, str(error.errno).encode())
            except ValueError:
                # Text that no argument can hold, such as a NUL.
                os.write(failure_write, str(errno.EINVAL).encode())
            finally:
                os._exit(127)
        os.close(failure_write)
        with os.fdopen(failure_read, "rb") as pipe:
            failure = pipe.read()
        if failure:
            os.waitpid(pid, 0)
            raise OSError(int(failure), os.strerror(int(failure)))
        return pid

    def _become(self, argv: list[str], env: dict[str, str], cwd: str, fds: list[int]) -> None:
        """In the child: take on the command's surroundings and turn into it."""
        os.setsid()
        if not self._own_pids:
            _die_with_parent()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        stdin = os.open("/dev/null", os.O_RDONLY)
        for fd, place in ((stdin, 0), (fds[0], 1), (fds[1], 2)):
            os.dup2(fd, place, inheritable=True)
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
        os.umask(0o022)
        os.chdir(cwd)
        program = argv[0]
        if "/" in program:
            os.execve(program, argv, env)
        os.execvpe(program, argv, env)

    def _reap(self) -> bool:
        """Collect what has ended and report it; whether anything is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            command = self._running.pop(pid, None)
            if command is not None:
                code = os.waitstatus_to_exitcode(status)
                exit_code = code if code >= 0 else 128 - code
                self._channel.send({"id": command, "exit": exit_code, **self._usage()})

    def _kill(self, command: int) -> None:
        """Kill a command and everything below it, and what is left of its session."""
        leaders = [pid for pid, running in self._running.items() if running == command]
        for leader in leaders:
            # Stopped, not killed, until nothing is below it: its children would lose their trace otherwise.
            _kill_all([leader], signal.SIGSTOP)
            doomed = {leader}
            for _round in range(_KILL_ROUNDS):
                found = {*procs.descendants(leader), *procs.with_session(leader)} - doomed
                if not found:
                    break
                _kill_all(found, signal.SIGKILL)
                doomed |= found
            _kill_group(leader)
            _kill_all([leader], signal.SIGKILL)

    def _open(self, message: Message) -> None:
        answer: dict[str, Any] = {"id": message["id"]}
        try:
            fd = files.open_file(
                message["path"], write=message["write"], readable=self._readable, writable=self._writable
            )
        except files.Refused as refusal:
            self._channel.send({**answer, "error": str(refusal)})
        except OSError as error:
            self._channel.send({**answer, "error": error.strerror or str(error), "errno": error.errno})
        except ValueError as error:
            self._channel.send({**answer, "error": str(error), "errno": errno.EINVAL})
        else:
            self._channel.send(answer, [fd])
            os.close(fd)

    def _socket(self, message: Message) -> None:
        """A new TCP socket, which stays in the activity's network wherever it is used."""
        try:
            sock = socket.socket(message["family"], socket.SOCK_STREAM)
        except OSError as error:
            self._channel.send({"id": message["id"], "error": error.strerror or str(error)})
            return
        with sock:
            self._channel.send({"id": message["id"]}, [sock.fileno()])

    def _discard_from(self, fd: int) -> None:
        """Read away what a command's background processes still write, so that they neither block nor die."""
        os.set_blocking(fd, False)
        self._discarded.add(fd)
        self._poll.register(fd, select.POLLIN)

    def _discard(self, fd: int) -> None:
        try:
            more = os.read(fd, _DISCARD_SIZE)
        except BlockingIOError:
            return
        if not more:
            self._poll.unregister(fd)
            self._discarded.discard(fd)
            os.close(fd)

    def _usage(self) -> Message:
        return {"cpu": procs.cpu_of_children(), "own": procs.cpu_of_self()}

    def _report(self, *, always: bool = False) -> None:
        usage = self._usage()
        self._reported_at = time.monotonic()
        if always or usage["cpu"] - self._reported >= _REPORT_STEP:
            self._reported = usage["cpu"]
            self._channel.send(usage)

    def _kill_everything(self) -> None:
        if self._own_pids:
            _kill_all([-1], signal.SIGKILL)
            _wait_for_all()
        else:
            end_descendants(tuple(self._running))


def end_descendants(sessions: Sequence[int] = ()) -> None:
    """Kill and reap everything below the calling process, which must adopt orphans.

    Where there is no ``/proc`` to find them by, only the process groups of `sessions` are killed.
    """
    for _round in range(_KILL_ROUNDS):
        for session in sessions:
            _kill_group(session)
        targets = procs.descendants(os.getpid())
        # Stopped first, so that none of them can fork while the others die.
        _kill_all(targets, signal.SIGSTOP)
        _kill_all(targets, signal.SIGKILL)
        if not targets:
            break
        for pid in targets:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                continue
    _wait_for_all()


def _wait_for_all() -> None:
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _kill_all(pids: Sequence[int] | set[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _limit(kind: int, wanted: int) -> None:
    _soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _die_with_parent() -> None:
    try:
        from . import syscalls

        syscalls.die_with_parent(signal.SIGKILL)
    except (OSError, AttributeError):
        # Only Linux has this; elsewhere the keeper's own clearing up has to do.
        return
