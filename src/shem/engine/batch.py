"""Runs a script in an activity: one batch on the provider, its results, its transfers."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from shem.clock import Clock
from shem.engine.activity import Activity
from shem.engine.polling import Backoff, insist, pause_unless
from shem.errors import (
    ActivityGone,
    CommandFailed,
    Gone,
    NodeError,
    NodeFailure,
    NodeUnavailable,
    NotFound,
    RequestTimeout,
    ScriptError,
    ScriptTimeout,
    TransferError,
)
from shem.events import Phase
from shem.ids import BatchId
from shem.lifecycle import ActivityState
from shem.script import Command, CommandResult, Script
from shem.script.commands import Deploy, Download, Start, Terminate, Upload
from shem.yagna.api import ActivityApi, Channel, FilesApi
from shem.yagna.content import BytesSink, BytesSource, FileSink, FileSource
from shem.yagna.models import CommandOutcome

#: How long the node may hold one request for results, in seconds.
RESULT_SECONDS = 20.0

_EXIT_CODE = re.compile(r"exited with code (-?\d+)")

Progress = Callable[[Phase], None]


class NodeApi(ActivityApi, FilesApi, Protocol):
    """What running a script needs of the node."""


class Batch:
    """One script on its way through one activity. `run` is called once."""

    def __init__(self, script: Script, activity: Activity, api: NodeApi, *, clock: Clock) -> None:
        self._script, self._activity, self._api, self._clock = script, activity, api, clock
        self._commands = script.commands
        self._channels: dict[int, Channel] = {}
        self._memory: dict[int, BytesSink] = {}
        self._discards: list[Callable[[], None]] = []

    async def run(self, progress: Progress) -> None:
        """Run it to its end and resolve its handles with what came of it.

        Raises `CommandFailed`, `ScriptTimeout`, `ActivityGone` or `ScriptError`; the handles that are open
        then are the caller's to fail.
        """
        limit = self._script.timeout
        watch = asyncio.timeout(limit)
        try:
            async with watch:
                await self._run(progress)
        except TimeoutError:
            if not watch.expired():
                raise
            raise ScriptTimeout(
                f"{self._script!r} took longer than its {limit:g} s; what runs on the provider may run on"
            ) from None
        finally:
            for discard in self._discards:
                discard()
            await asyncio.shield(self._close_channels())
        self._script.finish()

    async def _run(self, progress: Progress) -> None:
        if not self._commands:
            # The node never finishes an empty batch (contract, appendix B).
            return
        try:
            wire = [await self._prepare(command, index) for index, command in enumerate(self._commands)]
        except TransferError as error:
            raise ScriptError(f"{self._script!r} could not be sent: {error}") from error
        batch_id = await self._send(wire)
        await self._follow(batch_id, progress)

    # --- sending

    async def _prepare(self, command: Command, index: int) -> dict[str, Any]:
        if isinstance(command, Upload):
            source = (
                BytesSource(command.content)
                if isinstance(command.content, bytes)
                else FileSource(command.content)
            )
            return command.wire(await self._open(index, self._api.publish(source)))
        if isinstance(command, Download):
            if command.to is None:
                sink = self._memory[index] = BytesSink(command.limit)
                return command.wire(await self._open(index, self._api.receive(sink)))
            file = FileSink(command.to)
            self._discards.append(file.discard)
            return command.wire(await self._open(index, self._api.receive(file)))
        return command.wire()

    async def _open(self, index: int, opening: Awaitable[Channel]) -> str:
        try:
            channel = await opening
        except NodeError as error:
            raise ScriptError(f"no transfer could be opened: {error}") from error
        self._channels[index] = channel
        return channel.url

    async def _close_channels(self) -> None:
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    async def _send(self, wire: list[dict[str, Any]]) -> BatchId:
        """Queue the batch. Repeated only where the node cannot have taken it."""
        backoff = Backoff(self._clock)
        while True:
            try:
                return await insist(
                    lambda: self._api.execute(self._activity.id, wire), clock=self._clock, within=math.inf
                )
            except NodeError as error:
                await self._look_after(error)
                if not isinstance(error, NodeFailure) or backoff.attempts >= 3:
                    raise ScriptError(f"{self._script!r} could not be sent: {error}") from error
            await backoff.wait()

    # --- following

    async def _follow(self, batch_id: BatchId, progress: Progress) -> None:
        backoff = Backoff(self._clock)
        known = 0
        while True:
            self._tell(known, progress)
            asked_at, news = self._clock.monotonic(), False
            try:
                outcomes = await self._api.batch_results(self._activity.id, batch_id, timeout=RESULT_SECONDS)
            except RequestTimeout:
                outcomes = ()
            except NodeError as error:
                await self._look_after(error)
                if not isinstance(error, NodeUnavailable | NodeFailure):
                    raise ScriptError(f"the results of {self._script!r} were lost: {error}") from error
                await backoff.wait()
                continue
            for outcome in outcomes[known:]:
                news = True
                await self._take(outcome)
                known += 1
                if known == len(self._commands):
                    return
            await pause_unless(news, asked_at, backoff)

    def _tell(self, index: int, progress: Progress) -> None:
        command = self._commands[index]
        if isinstance(command, Deploy):
            progress(Phase.DEPLOYING)
        elif isinstance(command, Start):
            progress(Phase.BOOTING)
        else:
            progress(Phase.SCRIPT)

    async def _look_after(self, error: NodeError) -> None:
        """A call failed: see whether the activity is gone. Raises `ActivityGone` if so."""
        if isinstance(error, NodeUnavailable):
            return
        if self._activity.loss is None:
            try:
                await self._activity.observe()
            except (NotFound, Gone):
                await self._activity.found_gone("the node does not know the activity any more", error)
            except NodeError:
                # The state is not to be had either: the liveness watch decides how long that may last.
                pass
        if (loss := self._activity.loss) is not None:
            raise ActivityGone(f"{self._script!r} has nowhere to run: {loss}") from error

    async def _take(self, outcome: CommandOutcome) -> None:
        command = self._commands[outcome.index]
        stdout, stderr = _text(outcome.stdout), _text(outcome.stderr)
        if not outcome.ok:
            await self._after_failure()
            code = _EXIT_CODE.search(outcome.message or "")
            ours = self._channels[outcome.index].failure if outcome.index in self._channels else None
            failed = CommandFailed(
                str(command),
                outcome.index,
                # What went wrong on this side is the cause; the provider was only told that something did.
                str(ours) if ours is not None else outcome.message or "no message",
                exit_code=int(code[1]) if code else None,
                stdout=stdout,
                stderr=stderr,
            )
            self._script.fail(failed, outcome.index)
            raise failed from ours
        # (A failure proves nothing: the node itself ends the scripts of an activity that is given up.)
        self._activity.sign_of_life()
        if isinstance(command, Deploy):
            self._activity.reached(ActivityState.DEPLOYED)
        elif isinstance(command, Start):
            self._activity.reached(ActivityState.READY)
        elif isinstance(command, Terminate):
            self._activity.taken_down()
        await self._script.succeed(
            CommandResult(
                index=outcome.index,
                command=command,
                stdout=stdout,
                stderr=stderr,
                message=outcome.message,
                value=self._value(command, outcome.index),
            )
        )

    async def _after_failure(self) -> None:
        """A command failed: perhaps because the whole activity went."""
        try:
            await self._activity.observe()
        except NodeError:
            return
        if (loss := self._activity.loss) is not None:
            raise ActivityGone(f"{self._script!r} was cut short: {loss}")

    def _value(self, command: Command, index: int) -> object:
        sink = self._memory.get(index)
        if sink is None or not isinstance(command, Download):
            return None
        try:
            content = sink.content()
            return msgspec.json.decode(content) if command.as_json else content
        except (TransferError, msgspec.DecodeError) as error:
            failed = CommandFailed(str(command), index, f"what arrived is unusable: {error}")
            self._script.fail(failed, index)
            raise failed from error


def _text(output: str | list[int] | None) -> str | None:
    return bytes(output).decode(errors="replace") if isinstance(output, list) else output
