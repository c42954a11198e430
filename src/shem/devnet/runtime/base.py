"""The seam between a built-in provider and what it runs commands in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

#: Called with "stdout" or "stderr" and a piece of output, in the order it was written.
OutputListener = Callable[[str, bytes], None]


class CommandError(Exception):
    """A command could not be carried out; the text goes into the batch result's `message`."""


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """What one activity asks of its runtime.

    `image_hash` is the hex hash of the demand's task package, or None where the demand names none.
    Sizes are in GiB, as in the offer.
    """

    activity_id: str
    image_hash: str | None
    mem_gib: float
    storage_gib: float
    threads: int


@dataclass(frozen=True, slots=True)
class DeployOptions:
    """Arguments of the `deploy` command (contract 3.4.4)."""

    env: dict[str, str] = field(default_factory=dict)
    hostname: str | None = None
    hosts: dict[str, str] = field(default_factory=dict)
    volumes: Sequence[str] = ()
    net: Sequence[dict[str, Any]] = ()


class Runtime(Protocol):
    """What one activity's commands run in. Methods may overlap, as batches do."""

    @property
    def lost(self) -> asyncio.Future[str]:
        """Resolved with a reason when the runtime dies without having been asked to."""

    async def deploy(self, options: DeployOptions) -> str:
        """Make the file system; returns the DeployResult as JSON text. Raises `CommandError`."""

    async def start(self, args: Sequence[str]) -> None:
        """Make it ready to run commands. Raises `CommandError`."""

    async def run(self, entry_point: str, args: Sequence[str], output: OutputListener) -> int:
        """Run a program to its end; returns its exit code (128 + signal number where a signal ended it).

        Cancelling the call kills the program and everything it started. Raises `CommandError` where it
        cannot be started.
        """

    async def open_to_read(self, path: str) -> BinaryIO:
        """A regular file by its path inside the runtime. Raises `CommandError`; never leaves the runtime."""

    async def open_to_write(self, path: str) -> BinaryIO:
        """A new, empty file in a writable volume. Raises `CommandError`; never leaves the runtime."""

    async def stop(self) -> None:
        """End all processes; `deploy` may follow. Volumes are emptied."""

    def cpu_seconds(self) -> float:
        """CPU time used so far by everything that ever ran in here, as far as known without waiting.

        At most about a second old while something runs; exact once stopped.
        """

    async def refresh_usage(self) -> float:
        """CPU time used so far by everything that ever ran in here, measured now."""

    async def destroy(self) -> None:
        """End all processes and remove every file. Idempotent."""


class RuntimeFactory(Protocol):
    """Makes runtimes for a provider."""

    @property
    def isolation(self) -> str:
        """What keeps activities apart from each other and from the host, in one line for people."""

    async def create(self, spec: RuntimeSpec) -> Runtime:
        """A new runtime, not deployed yet."""

    async def aclose(self) -> None:
        """Destroy every runtime that is left, and whatever they had in common. Idempotent."""
