"""The runtime that runs nothing: every command succeeds at once, files are kept in memory.

It starts no process and opens no socket, so it works in virtual time.
"""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import Sequence
from typing import BinaryIO

from shem.devnet.runtime.base import CommandError, DeployOptions, OutputListener, RuntimeSpec


class NullFactory:
    """Makes null runtimes."""

    @property
    def isolation(self) -> str:
        """What keeps activities apart from each other and from the host, in one line for people."""
        return "nothing is run: every command succeeds at once, files are kept in memory"

    async def create(self, spec: RuntimeSpec) -> NullRuntime:
        """A new runtime, not deployed yet."""
        return NullRuntime(spec)

    async def aclose(self) -> None:
        """Nothing to do: a null runtime holds nothing but memory."""


class NullRuntime:
    """One activity that runs nothing; `shem.devnet.runtime.base.Runtime` says what its methods promise."""

    def __init__(self, spec: RuntimeSpec) -> None:
        self._spec = spec
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._files: dict[str, _MemoryFile] = {}
        self._deployed = False
        self._started = False
        self._destroyed = False

    @property
    def lost(self) -> asyncio.Future[str]:
        """Never resolved by the runtime itself: there is nothing that could die."""
        return self._lost

    async def deploy(self, options: DeployOptions) -> str:
        """Accept any options; the DeployResult as JSON text. Raises `CommandError` when deployed already."""
        if self._destroyed:
            raise CommandError(f"activity {self._spec.activity_id} has ended; it cannot be deployed any more")
        if self._deployed:
            raise CommandError(f"activity {self._spec.activity_id} is deployed already")
        self._deployed = True
        volumes = [{"name": f"volume-{number}", "path": path} for number, path in enumerate(options.volumes)]
        return json.dumps({"valid": {"Ok": "nothing is run here"}, "vols": volumes, "startMode": "blocking"})

    async def start(self, args: Sequence[str]) -> None:
        """Allow commands. Raises `CommandError` before `deploy`."""
        self._need_deployed()
        self._started = True

    async def run(self, entry_point: str, args: Sequence[str], output: OutputListener) -> int:
        """Do nothing, successfully and silently. Raises `CommandError` before `start`."""
        self._need_deployed()
        if not self._started:
            raise CommandError(f"activity {self._spec.activity_id} is not started; send start before run")
        return 0

    async def open_to_read(self, path: str) -> BinaryIO:
        """What was last written to this path. Raises `CommandError` where nothing was."""
        self._need_deployed()
        if path not in self._files:
            raise CommandError(f"{path} cannot be read: nothing was written to it")
        return io.BytesIO(self._files[path].content())

    async def open_to_write(self, path: str) -> BinaryIO:
        """A new, empty file in memory. Raises `CommandError` for a path that is not absolute."""
        self._need_deployed()
        if not path.startswith("/"):
            raise CommandError(f"{path} cannot be written: the path is not absolute")
        file = self._files[path] = _MemoryFile()
        return file

    async def connect(self, port: int, host: str = "127.0.0.1") -> socket.socket:
        """Nothing runs, so nothing listens: always raises `CommandError`."""
        raise CommandError(f"no connection to {host}:{port} inside: nothing is run here")

    async def stop(self) -> None:
        """Forget the files; `deploy` may follow."""
        self._deployed = self._started = False
        self._files.clear()

    async def refresh_usage(self) -> float:
        """Nothing runs, so nothing is used."""
        return 0.0

    def cpu_seconds(self) -> float:
        """Nothing runs, so nothing is used."""
        return 0.0

    async def destroy(self) -> None:
        """Forget everything. Idempotent."""
        self._destroyed = True
        await self.stop()

    def _need_deployed(self) -> None:
        if not self._deployed:
            raise CommandError(f"activity {self._spec.activity_id} is not deployed; send deploy first")


class _MemoryFile(io.BytesIO):
    """A file whose content can still be read when its writer has closed it."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: bytes | None = None

    def content(self) -> bytes:
        """What has been written so far."""
        return self.getvalue() if self._kept is None else self._kept

    def close(self) -> None:
        """Keep what was written."""
        if not self.closed:
            self._kept = self.getvalue()
        super().close()
