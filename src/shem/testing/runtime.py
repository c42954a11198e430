"""A runtime whose answers a test decides: no processes, files in memory, durations in virtual time."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from shem.devnet.runtime.base import CommandError, DeployOptions, OutputListener, RuntimeSpec
from shem.devnet.runtime.null import NullRuntime


@dataclass(frozen=True, slots=True)
class Reply:
    """How a program behaves: after `seconds` it has written its output and `files`, and exits."""

    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0
    seconds: float = 0.0
    files: Mapping[str, bytes] = field(default_factory=dict)


#: Given a program and its arguments, how it behaves.
Respond = Callable[[str, Sequence[str]], Reply]
#: Given the path of a file that nobody wrote, its content all the same. Raises `CommandError` for none.
Unwritten = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Durations:
    """How long a runtime takes to be made, to be deployed and to be destroyed, in seconds."""

    create: float = 0.0
    deploy: float = 0.0
    destroy: float = 0.0


class ScriptedFactory:
    """Makes scripted runtimes."""

    isolation = "nothing is run: a test decides what commands answer"

    def __init__(self, respond: Respond, durations: Durations, unwritten: Unwritten | None = None) -> None:
        self._respond, self._durations, self._unwritten = respond, durations, unwritten

    async def create(self, spec: RuntimeSpec) -> ScriptedRuntime:
        """A new runtime, not deployed yet."""
        await asyncio.sleep(self._durations.create)
        return ScriptedRuntime(spec, self._respond, self._durations, self._unwritten)

    async def aclose(self) -> None:
        """Nothing to do: a scripted runtime holds nothing but memory."""


class ScriptedRuntime(NullRuntime):
    """One activity whose programs behave as a test says."""

    def __init__(
        self,
        spec: RuntimeSpec,
        respond: Respond,
        durations: Durations,
        unwritten: Unwritten | None = None,
    ) -> None:
        super().__init__(spec)
        self._respond, self._durations, self._unwritten = respond, durations, unwritten

    async def deploy(self, options: DeployOptions) -> str:
        """Take the time that was set for it. Raises `CommandError` when deployed already."""
        await asyncio.sleep(self._durations.deploy)
        return await super().deploy(options)

    async def destroy(self) -> None:
        """Take the time that was set for it."""
        await asyncio.sleep(self._durations.destroy)
        await super().destroy()

    async def open_to_read(self, path: str) -> BinaryIO:
        """What was last written to this path, or what the test says instead. Raises `CommandError`."""
        try:
            return await super().open_to_read(path)
        except CommandError:
            if self._unwritten is None or not self._started:
                raise
            return io.BytesIO(self._unwritten(path))

    async def run(self, entry_point: str, args: Sequence[str], output: OutputListener) -> int:
        """Behave as the test says. Raises `CommandError` before `start`."""
        await super().run(entry_point, args, output)
        reply = self._respond(entry_point, args)
        await asyncio.sleep(reply.seconds)
        for path, content in reply.files.items():
            with await self.open_to_write(path) as file:
                file.write(content)
        output("stdout", reply.stdout.encode())
        output("stderr", reply.stderr.encode())
        return reply.exit_code
