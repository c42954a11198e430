"""``shem run``: run a service from a file until it ends, its time is over, or somebody stops it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from shem import log
from shem.cli.live import LiveTable
from shem.cli.options import Duration, Image, Mendable, Param
from shem.cli.target import load_service
from shem.clock import SystemClock
from shem.config import NodeAddress
from shem.devnet.devnet import Devnet
from shem.errors import NodeError, ShemError
from shem.events import BusEvent, NodeChosen
from shem.golem import SHORTEST_EXPIRATION, Golem
from shem.ids import InstanceId
from shem.lifecycle import State
from shem.service.cluster import Cluster
from shem.service.service import Service

#: How often the live table is drawn, and how often costs are asked for, in seconds.
DRAW_EVERY = 0.25
COSTS_EVERY = 1.0
#: How much longer than `--for` the agreements last, so that the end is ours to choose.
SLACK = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Order:
    """What the command line asks for."""

    service: type[Service]
    instances: int
    params: dict[str, Any]
    seconds: float | None
    budget: str
    images: dict[str, Path]
    live: bool


@click.command("run")
@click.argument("target", metavar="FILE[:SERVICE]")
@click.option("-n", "--instances", default=1, show_default=True, type=int, help="How many instances.")
@click.option("--for", "seconds", type=Duration(), help="Stop after this time: 30s, 5m, 1h.")
@click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    type=Param(),
    metavar="NAME=VALUE",
    help="Constructor argument of every instance; may be repeated.",
)
@click.option("--budget", default="1.0", show_default=True, help="The most that may be spent, in GLM.")
@click.option(
    "--image",
    "images",
    multiple=True,
    type=Image(),
    metavar="HASH=DIR",
    help="Folder to use for an image hash, on the devnet; may be repeated.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Least level logged; by default warning on a terminal beside the live table, else info.",
)
def command(
    target: str,
    instances: int,
    seconds: float | None,
    params: Sequence[tuple[str, Any]],
    budget: str,
    images: Sequence[tuple[str, Path]],
    log_level: str | None,
) -> None:
    """Run a service from FILE until it ends, its time is over, or it is stopped with Ctrl-C.

    Without YAGNA_APPKEY it runs on an embedded devnet. A second Ctrl-C does not wait for shutdown() any more.
    Exit code: 0 where every instance ended well or was stopped, 1 where one failed, 2 for wrong input.
    """
    live = sys.stdout.isatty()
    # The table and the log would get in each other's way on one terminal only.
    log.configure(level=log_level or ("warning" if live and sys.stderr.isatty() else "info"))
    service = load_service(target)
    order = Order(service, instances, dict(params), seconds, budget, dict(images), live)
    try:
        failed = asyncio.run(_Run(order).run())
    except (ShemError, OSError) as error:
        raise Mendable(str(error)) from error
    except asyncio.CancelledError:
        raise Mendable("stopped before anything was rented") from None
    sys.exit(1 if failed else 0)


class _Run:
    """One run of the command."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._clock = SystemClock()
        self._console = Console()
        self._costs: dict[InstanceId, Decimal] = {}
        self._isolation = ""
        self._signals = 0
        self._stop = asyncio.Event()
        self._main: asyncio.Task[Any] | None = None
        self._cluster: Cluster[Service] | None = None

    async def run(self) -> bool:
        """Run to the end; True where an instance failed."""
        order = self._order
        self._main = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        try:
            async with self._node() as node:
                golem = Golem(budget=order.budget, node=node)
                golem.add_event_consumer(self._announce, NodeChosen)
                async with golem:
                    cluster = self._cluster = await golem.run_service(
                        order.service,
                        num_instances=order.instances,
                        instance_params=[order.params] * max(order.instances, 0) or None,
                        expiration=self._expiration(),
                    )
                    async with self._table(cluster), self._cost_watch(cluster):
                        await self._until_the_end(cluster)
                        report = await cluster.stop("the time given with --for is over")
                for step in report.skipped:
                    self._say(f"skipped: {step}", "yellow")
                return self._sum_up(cluster, golem)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    @contextlib.asynccontextmanager
    async def _node(self) -> AsyncIterator[NodeAddress]:
        configured = NodeAddress.from_environment()
        if configured is None:
            providers = max(4, self._order.instances + 2)
            devnet = Devnet(providers=providers, images=self._order.images)
            async with devnet as address:
                self._isolation = devnet.isolation
                yield address
            return
        if self._order.images:
            raise Mendable("--image is for the embedded devnet, but YAGNA_APPKEY names a node of its own")
        yield configured

    def _expiration(self) -> timedelta | None:
        if self._order.seconds is None:
            return None
        return max(timedelta(seconds=self._order.seconds) + SLACK, SHORTEST_EXPIRATION + SLACK)

    def _interrupt(self) -> None:
        self._signals += 1
        if self._cluster is None:
            # Nothing is rented yet: leave the start, by way of its own clean-up.
            if self._main is not None:
                self._main.cancel()
        elif self._signals == 1:
            self._say("stopping; once more to wait for no shutdown()", "bold yellow")
            self._cluster.stop("interrupted")
            self._stop.set()
        else:
            self._say("stopping at once", "bold yellow")
            self._cluster.stop_now()

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, highlight=False, soft_wrap=True)

    def _announce(self, event: BusEvent) -> None:
        if isinstance(event, NodeChosen):
            self._say(f"node: {event.kind} at {event.url}; {event.hint}".rstrip("; "))
        if self._isolation:
            self._say(f"its providers: {self._isolation}")

    async def _until_the_end(self, cluster: Cluster[Service]) -> None:
        """Wait until all instances are terminated, the time is over, or a signal came."""
        loop = asyncio.get_running_loop()
        done = loop.create_task(cluster.wait_until(State.TERMINATED), name="end of all instances")
        stopped = loop.create_task(self._stop.wait(), name="signal")
        try:
            await asyncio.wait(
                {done, stopped}, timeout=self._order.seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task in (done, stopped):
                task.cancel()
            await asyncio.gather(done, stopped, return_exceptions=True)

    # --- what a person sees

    @contextlib.asynccontextmanager
    async def _table(self, cluster: Cluster[Service]) -> AsyncIterator[None]:
        title = f"{cluster.service_class.__name__} × {self._order.instances}"
        table = LiveTable(title, lambda: cluster.instances, self._costs.get, self._clock)
        if not self._order.live:
            yield
            return
        with Live(table, console=self._console, auto_refresh=False, transient=False) as live:
            drawing = asyncio.get_running_loop().create_task(_draw(live), name="live table")
            try:
                yield
            finally:
                drawing.cancel()
                await asyncio.gather(drawing, return_exceptions=True)
                live.refresh()

    @contextlib.asynccontextmanager
    async def _cost_watch(self, cluster: Cluster[Service]) -> AsyncIterator[None]:
        watching = asyncio.get_running_loop().create_task(self._watch_costs(cluster), name="costs")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch_costs(self, cluster: Cluster[Service]) -> None:
        while True:
            for service in cluster.instances:
                if service.is_available:
                    # What cannot be learnt now is asked again in a second.
                    with contextlib.suppress(NodeError):
                        self._costs[service.id] = await service._ctx.get_cost()
            await asyncio.sleep(COSTS_EVERY)

    def _sum_up(self, cluster: Cluster[Service], golem: Golem) -> bool:
        failed = [service for service in cluster.instances if service.error is not None]
        for service in failed:
            self._say(service.why(), "red")
        self._say("paid:", "bold")
        total = Decimal(0)
        for account in golem.accounts:
            total += account.accepted
            note = f"  ({account.refused})" if account.refused else ""
            state = "invoice accepted" if account.invoiced is not None else "no invoice came"
            self._say(
                f"  {account.provider:<12} agreement {account.agreement[:8]}  {account.accepted:.6f} GLM  "
                f"{state}{note}"
            )
        self._say(f"  total {total:.6f} GLM of a budget of {self._order.budget}")
        return bool(failed)


async def _draw(live: Live) -> None:
    while True:
        live.refresh()
        await asyncio.sleep(DRAW_EVERY)
