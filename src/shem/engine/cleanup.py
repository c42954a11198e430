"""Clean-up that has to happen even when the one who owes it is being cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from shem.bus import Bus
from shem.clock import Clock
from shem.errors import ShemError
from shem.events import StepSkipped

#: Seconds that a step which overran its budget gets to end after its own cancellation.
_LAST_WORDS = 2.0


async def see_through(
    step: str, work: Coroutine[Any, Any, Any], *, within: float, clock: Clock, bus: Bus
) -> bool:
    """Run a step of clean-up to its end, for at most `within` seconds; True where it succeeded.

    A cancellation of the caller does not stop the step: it is raised once the step is over. A step that fails
    or overruns its budget is reported as `StepSkipped`, since nobody is left to handle it.
    """
    task = asyncio.get_running_loop().create_task(work, name=step)
    deadline = clock.monotonic() + within
    cancelled: asyncio.CancelledError | None = None
    while not task.done() and (left := deadline - clock.monotonic()) > 0:
        try:
            await asyncio.wait([task], timeout=left)
        except asyncio.CancelledError as request:
            cancelled = request
    reason = ""
    if not task.done():
        task.cancel()
        reason = f"it took longer than {within:g} s"
        await asyncio.wait([task], timeout=_LAST_WORDS)
    elif task.cancelled():
        reason = "it was cancelled"
    elif (error := task.exception()) is not None:
        if not isinstance(error, ShemError):
            raise error
        reason = str(error)
    if reason:
        bus.emit(StepSkipped(at=clock.now(), step=step, reason=reason))
    if cancelled is not None:
        raise cancelled
    return not reason
