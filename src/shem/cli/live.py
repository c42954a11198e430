"""The live table of a run: what every instance is doing, where, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from shem.clock import Clock
from shem.ids import InstanceId
from shem.lifecycle import State
from shem.service.service import Service

STYLES = {
    State.PENDING: "yellow",
    State.STARTING: "cyan",
    State.RUNNING: "bold green",
    State.STOPPING: "magenta",
    State.TERMINATED: "dim",
    State.UNRESPONSIVE: "bold red",
}


class LiveTable:
    """A renderable that shows the instances as they are whenever it is drawn.

    Args:
        costs: what each instance has cost so far, in GLM, as far as is known.
    """

    def __init__(
        self,
        title: str,
        services: Callable[[], Sequence[Service]],
        costs: Callable[[InstanceId], Decimal | None],
        clock: Clock,
    ) -> None:
        self._title, self._services, self._costs, self._clock = title, services, costs, clock

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(title=self._title, title_justify="left", title_style="bold")
        for heading in ("instance", "state", "phase", "for", "provider"):
            table.add_column(heading, no_wrap=True)
        table.add_column("cost (GLM)", justify="right", no_wrap=True)
        for service in self._services():
            cost = self._costs(service.id)
            table.add_row(
                service.id,
                Text(service.state.value, style=STYLES[service.state]),
                service.phase.value if service.phase else "",
                self._time_in_state(service),
                service.provider_name or "",
                "" if cost is None else f"{cost:.6f}",
            )
        yield table

    def _time_in_state(self, service: Service) -> str:
        if not service.records:
            return ""
        return f"{self._clock.monotonic() - service.records[-1].monotonic:.0f} s"
