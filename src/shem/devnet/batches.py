"""Batches: the commands of one script, what came of each, and the events on the way.

Source: contract 3.4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shem.clock import Clock
from shem.devnet.commands import Step
from shem.devnet.waiting import Bell
from shem.ids import BatchId
from shem.yagna import models as wire


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """Something that happened while a command ran.

    `kind` has one key: ``started``, ``stdout``, ``stderr`` or ``finished``, as on the wire.
    """

    index: int
    timestamp: datetime
    kind: dict[str, Any]


class Batch:
    """One script in work. It ends with the last command, with the first that fails, or with its activity."""

    def __init__(self, identifier: BatchId, steps: Sequence[Step], clock: Clock) -> None:
        self.id, self.steps = identifier, tuple(steps)
        self.outcomes: list[wire.CommandOutcome] = []
        self.events: list[RuntimeEvent] = []
        self.bell = Bell()
        self.finished = not self.steps
        self.running: int | None = None
        self._clock = clock

    def started(self, index: int) -> None:
        """A command begins."""
        if not self.finished:
            self.running = index
            self._event(index, {"started": {"command": self.steps[index].raw}})

    def wrote(self, index: int, stream: str, content: str | list[int]) -> None:
        """A command wrote something that is streamed."""
        if not self.finished:
            self._event(index, {stream: content})

    def ended(
        self,
        index: int,
        *,
        return_code: int = 0,
        message: str | None = None,
        stdout: str | list[int] | None = None,
        stderr: str | list[int] | None = None,
    ) -> None:
        """A command ended; any code but 0 is a failure and ends the batch."""
        if self.finished:
            return
        failed = return_code != 0
        self.finished = failed or index == len(self.steps) - 1
        self.running = None
        self.outcomes.append(
            wire.CommandOutcome(
                index=index,
                event_date=self._clock.now(),
                result="Error" if failed else "Ok",
                stdout=stdout,
                stderr=stderr,
                message=message,
                is_batch_finished=self.finished,
            )
        )
        self._event(index, {"finished": {"return_code": return_code, "message": message}})

    def broken_off(self, message: str) -> None:
        """The activity ended: the command that ran, or was next, fails."""
        if not self.finished:
            self.ended(len(self.outcomes), return_code=-1, message=message)

    def _event(self, index: int, kind: dict[str, Any]) -> None:
        self.events.append(RuntimeEvent(index, self._clock.now(), kind))
        self.bell.ring()
