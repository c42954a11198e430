"""A runtime whose answers a test decides: no processes, files in memory, durations in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shem.devnet.runtime.base import OutputListener, RuntimeSpec
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


class ScriptedFactory:
    """Makes scripted runtimes; `deploy_seconds` is how long deploying takes."""

    isolation = "nothing is run: a test decides what commands answer"

    def __init__(self, respond: Respond, *, deploy_seconds: float = 0.0) -> None:
        self._respond, self._deploy_seconds = respond, deploy_seconds

    async def create(self, spec: RuntimeSpec) -> ScriptedRuntime:
        """A new runtime, not deployed yet."""
        await asyncio.sleep(self._deploy_seconds)
        return ScriptedRuntime(spec, self._respond)

    async def aclose(self) -> None:
        """Nothing to do: a scripted runtime holds nothing but memory."""


class ScriptedRuntime(NullRuntime):
    """One activity whose programs behave as a test says."""

    def __init__(self, spec: RuntimeSpec, respond: Respond) -> None:
        super().__init__(spec)
        self._respond = respond

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
