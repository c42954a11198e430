"""The node's end of the wire to one activity's processes: asks them, hears their end. Nothing here blocks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from shem.devnet.runtime.init import wire
from shem.devnet.runtime.spawner import Spawner

#: Seconds that setting an activity up may take, and ending it.
SETUP_TIMEOUT = 20.0
END_TIMEOUT = 10.0
_LAST_WORDS = 500

Answer = tuple[wire.Message, list[int]]


class LinkLost(Exception):
    """The activity's process 1 is gone; the text says what is known about why."""


class SetupFailed(Exception):
    """The activity could not be set up; the text says why."""


class InitLink:
    """One activity's processes, seen from the loop in which it was made.

    `on_lost` is called with a reason when they end without `end` having been called. They hold no reference
    to anything of the node but their end of the socket, and end when the node does.

    Raises:
        OSError: the fork server cannot be started.
    """

    def __init__(self, spawner: Spawner, on_lost: Callable[[str], None]) -> None:
        self._spawner = spawner
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._decoder = wire.Decoder()
        self._unsent: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._last_id = 0
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._ready: asyncio.Future[str | None] = self._loop.create_future()
        self._ended: asyncio.Future[str] = self._loop.create_future()
        self._ending = False
        self._cpu, self._own, self._total = 0.0, 0.0, 0.0
        self._last_words = ""
        self._pid: int | None = None
        self._sock, theirs = socket.socketpair()
        self._sock.setblocking(False)
        with theirs:
            try:
                self._number = spawner.spawn(theirs)
            except BaseException:
                self._sock.close()
                raise
        self._loop.add_reader(self._sock, self._on_readable)

    @property
    def pid(self) -> int | None:
        """The keeper's process id, once it is set up."""
        return self._pid

    @property
    def cpu(self) -> float:
        """CPU time in seconds of everything in the activity, as last reported; exact once it has ended."""
        return max(self._cpu, self._total - self._own)

    async def set_up(self, plan: dict[str, Any]) -> None:
        """Send the plan (the fields of `init.keeper.Plan`) and wait until it is carried out.

        Must be the first thing sent. Raises `SetupFailed`.
        """
        self._send(plan)
        try:
            async with asyncio.timeout(SETUP_TIMEOUT):
                failure = await asyncio.shield(self._ready)
        except TimeoutError:
            failure = f"it was not ready after {SETUP_TIMEOUT:.0f} s"
        if failure is not None:
            raise SetupFailed(failure)

    async def ask(
        self, op: str, fds: Sequence[int] = (), *, undo: str | None = None, **fields: Any
    ) -> Answer:
        """Send a request and wait for its answer, whose descriptors the caller then owns.

        `fds` are taken over and closed, whatever happens. When the caller is cancelled, `undo` is sent for
        the same request. Raises `LinkLost`, or `wire.WireError` where the request is too long.
        """
        if self._ended.done():
            wire.close_all(fds)
            raise LinkLost(self._ended.result())
        self._last_id += 1
        number = self._last_id
        self._send({"op": op, "id": number, **fields}, fds)
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[number] = answer
        try:
            return await answer
        except asyncio.CancelledError:
            if not answer.cancelled() and answer.done() and answer.exception() is None:
                # It came, and the cancellation with it: nobody else will close these.
                wire.close_all(answer.result()[1])
            elif undo is not None:
                self.tell(undo, id=number)
            raise
        finally:
            del self._waiting[number]

    def tell(self, op: str, fds: Sequence[int] = (), **fields: Any) -> None:
        """Send a request that has no answer. Where the program is gone, only `fds` are closed."""
        if self._ended.done():
            wire.close_all(fds)
        else:
            self._send({"op": op, **fields}, fds)

    async def end(self) -> None:
        """End all processes of the activity and remove its directory; bounded in time, idempotent."""
        self.begin_end()
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await asyncio.shield(self._ended)
        except TimeoutError:
            self.kill()
            self._on_end()

    def begin_end(self) -> None:
        """Have the program end everything, without waiting for it."""
        if not self._ending:
            self._ending = True
            with contextlib.suppress(OSError):
                # To the program this is the node's going away, which it knows how to deal with.
                self._sock.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """Kill the keeper at once; all else dies with it, but the activity's directory stays."""
        self._spawner.kill(self._number)

    def _send(self, message: wire.Message, fds: Sequence[int] = ()) -> None:
        try:
            frame = wire.encode(message, len(fds))
        except BaseException:
            wire.close_all(fds)
            raise
        self._unsent.append((memoryview(frame), fds))
        if len(self._unsent) == 1:
            self._on_writable()

    def _on_writable(self) -> None:
        while self._unsent:
            data, fds = self._unsent[0]
            try:
                sent = socket.send_fds(self._sock, [data], fds) if fds else self._sock.send(data)
            except BlockingIOError:
                self._loop.add_writer(self._sock, self._on_writable)
                return
            except OSError:
                # The wire's end: reading finds it too, and deals with it.
                self._drop_unsent()
                break
            wire.close_all(fds)
            if sent < len(data):
                self._unsent[0] = (data[sent:], ())
            else:
                self._unsent.popleft()
        self._loop.remove_writer(self._sock)

    def _drop_unsent(self) -> None:
        for _data, fds in self._unsent:
            wire.close_all(fds)
        self._unsent.clear()

    def _on_readable(self) -> None:
        try:
            data, fds = wire.receive(self._sock)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:
            self._on_end()
            return
        try:
            for message, own in self._decoder.feed(data, fds):
                wanted = False
                try:
                    wanted = self._on_message(message)
                finally:
                    if not wanted:
                        wire.close_all(own)
                if wanted:
                    self._waiting[message["id"]].set_result((message, own))
        except (wire.WireError, KeyError, TypeError, ValueError) as error:
            # Only something that has taken over process 1 could send this, so it is not to be trusted any
            # more.
            self.kill()
            self._last_words = f"process 1 sent what is no message: {error}"
            self._on_end()

    def _on_message(self, message: wire.Message) -> bool:
        """Take a message in; whether it is an answer that somebody waits for."""
        if "cpu" in message:
            self._cpu = max(self._cpu, float(message["cpu"]))
            self._own = float(message["own"])
        if "id" in message:
            answer = self._waiting.get(message["id"])
            return answer is not None and not answer.done()
        if "ready" in message or "failed" in message:
            if not self._ready.done():
                self._ready.set_result(message.get("failed"))
            self._pid = message.get("ready")
        elif "crashed" in message:
            words = str(message["crashed"]).strip()[-_LAST_WORDS:]
            self._last_words = f"its init program failed: {words}"
        elif "ended" in message:
            self._total = float(message["total"])
            status = int(message["ended"])
            how = f"was killed by signal {-status}" if status < 0 else f"ended with exit code {status}"
            self._last_words = self._last_words or f"its process 1 {how}"
        return False

    def _on_end(self) -> None:
        if self._ended.done():
            return
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._decoder.close()
        self._drop_unsent()
        reason = self._last_words or "its keeper was killed"
        self._ended.set_result(reason)
        if not self._ready.done():
            self._ready.set_result(reason)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(LinkLost(reason))
        if not self._ending:
            self._on_lost(reason)
