"""The node's handle on the fork server: starts it when it is needed, and has it fork keepers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

from shem.devnet.runtime import init
from shem.devnet.runtime.init import wire

_PROGRAM = Path(init.__file__).parent
#: Seconds to wait for the server to take a few bytes, and to end.
_PATIENCE = 5.0


class Spawner:
    """One fork server at most; a new one takes the place of one that was killed. Needs no event loop.

    The server is only written to. Activities do not depend on it once they are forked. After a node that died
    it removes `directory`, when it is empty.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._last_number = 0

    def spawn(self, control: socket.socket) -> int:
        """Have a keeper forked that serves this socket; its number, for `kill`. Raises `OSError`."""
        self._last_number += 1
        try:
            self._send({"fork": self._last_number}, control)
        except OSError:
            # It is not there, not yet or not any more.
            self.close()
            self._start()
            self._send({"fork": self._last_number}, control)
        return self._last_number

    def kill(self, number: int) -> None:
        """Have a keeper killed. Nothing happens where it, or the server that forked it, is gone."""
        try:
            self._send({"kill": number})
        except OSError:
            return

    def close(self) -> None:
        """End the server, not its keepers. Idempotent; `spawn` starts a new one."""
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._send({"leave": True})
            self._sock.close()
            self._sock = None
        if self._process is not None:
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _start(self) -> None:
        if not sys.executable:
            raise OSError("this Python does not know where its own program is (sys.executable is empty)")
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                own = [str(theirs.fileno()), str(os.getpid()), self._directory]
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-B", str(_PROGRAM), *own],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    # Where Python's own library is found by this, the program could not start without.
                    env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
                    cwd="/",
                    # A Ctrl-C at the terminal is the node's to deal with.
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        ours.settimeout(_PATIENCE)
        self._sock = ours

    def _send(self, message: wire.Message, control: socket.socket | None = None) -> None:
        if self._sock is None:
            raise BrokenPipeError("the fork server is not running")
        fds = [] if control is None else [control.fileno()]
        frame = wire.encode(message, len(fds))
        # Frames this small are taken whole or not at all.
        if fds:
            socket.send_fds(self._sock, [frame], fds)
        else:
            self._sock.send(frame)
