"""Carrying out the commands of a batch, one after another, in an activity's runtime.

Which states allow which command follows contract 3.4.2; a command that does not fit fails, it never raises.
"""

from __future__ import annotations

from typing import Final

from shem.devnet.activity import Activity
from shem.devnet.batches import Batch
from shem.devnet.capture import Capture
from shem.devnet.commands import Captures, Deploy, Run, Sign, Start, Step, Terminate, Transfer
from shem.devnet.gsb import Gsb
from shem.devnet.runtime.base import CommandError, DeployOptions
from shem.devnet.transfer import Fetcher, transfer
from shem.lifecycle import ActivityEvent
from shem.log import get_logger

_log = get_logger("devnet")

#: Return code of a command that was not carried out, as yagna reports it.
REFUSED: Final = -1


class Executor:
    """Carries out batches. One serves all activities of a node."""

    def __init__(self, gsb: Gsb, fetcher: Fetcher) -> None:
        self._gsb, self._fetcher = gsb, fetcher

    async def execute(self, activity: Activity, batch: Batch) -> None:
        """Carry out a batch up to its end or its first failure; the results are in the batch."""
        for index, step in enumerate(batch.steps):
            batch.started(index)
            try:
                await self._carry_out(activity, batch, index, step)
            except CommandError as error:
                await activity.heard()
                batch.ended(index, return_code=REFUSED, message=str(error))
            # A fault of the runtime must end the batch, or its requestor would wait for ever.
            except Exception as error:
                _log.error("command_broke", activity=activity.id, command=step.raw, exc_info=True)
                batch.ended(index, return_code=REFUSED, message=f"Runtime error: {error!r}")
            if batch.finished:
                return

    async def _carry_out(self, activity: Activity, batch: Batch, index: int, step: Step) -> None:
        match step.command:
            case Deploy() as deploy:
                options = DeployOptions(
                    env=deploy.env,
                    hostname=deploy.hostname,
                    hosts=deploy.hosts,
                    volumes=tuple(deploy.volumes),
                    net=tuple(deploy.net),
                )
                with activity.moving(ActivityEvent.DEPLOY):
                    result = await activity.runtime.deploy(options)
                    await activity.heard()
                batch.wrote(index, "stdout", result)
                batch.ended(index, stdout=result)
            case Start() as start:
                with activity.moving(ActivityEvent.START):
                    await activity.runtime.start(start.args)
                    await activity.heard()
                batch.ended(index)
            case Terminate():
                with activity.moving(ActivityEvent.TERMINATE):
                    await activity.runtime.stop()
                    await activity.heard()
                batch.ended(index)
            case Run() as run:
                with activity.working():
                    await self._run(activity, batch, index, run)
            case Transfer() as copy:
                with activity.working():
                    await transfer(activity.runtime, copy.source, copy.to, self._gsb, self._fetcher)
                    await activity.heard()
                batch.ended(index)
            case Sign():
                raise CommandError("Local service error: State error: sign() needs SGX")

    async def _run(self, activity: Activity, batch: Batch, index: int, run: Run) -> None:
        wanted = run.capture or Captures()
        captures = {"stdout": Capture(wanted.stdout), "stderr": Capture(wanted.stderr)}

        def listen(stream: str, piece: bytes) -> None:
            told = captures[stream].add(piece)
            if told is not None:
                batch.wrote(index, stream, told)

        code = await activity.runtime.run(run.entry_point, run.args, listen)
        await activity.heard()
        batch.ended(
            index,
            return_code=code,
            message=None if code == 0 else f"ExeScript command exited with code {code}",
            stdout=captures["stdout"].result(),
            stderr=captures["stderr"].result(),
        )
