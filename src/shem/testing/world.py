"""A simulated Golem Network: a node with providers, reached in process and in virtual time.

The node is the devnet's own core, so its agreements, activities and invoices obey the same rules; only the
HTTP in between and the processes on the providers are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from shem.devnet.local import LocalApi
from shem.devnet.node import Node
from shem.devnet.settings import ProviderSettings, Timings
from shem.golem import Golem
from shem.testing.runtime import Reply, Respond, ScriptedFactory
from shem.testing.sim import SimClock


def silent(_program: str, _args: Sequence[str]) -> Reply:
    """Every program succeeds at once and writes nothing."""
    return Reply()


class World:
    """The world of one test. Use it inside `sim.run`, as ``async with World() as world``.

    Attributes:
        clock: its time and chance.
        node: the simulated node; its `faults` break things on order, its `audit()` tells what is left over.
        calls: names of the node calls made so far, in order.
    """

    def __init__(
        self,
        providers: int | Sequence[ProviderSettings] = 3,
        *,
        respond: Respond = silent,
        timings: Timings | None = None,
        deploy_seconds: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.clock = SimClock(seed)
        self.calls: list[str] = []
        self.node = Node(
            ScriptedFactory(respond, deploy_seconds=deploy_seconds),
            providers=providers,
            timings=timings,
            clock=self.clock,
        )

    async def __aenter__(self) -> Self:
        await self.node.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.node.aclose()

    def api(self) -> LocalApi:
        """A connection to the node, as the engine uses it."""

        async def note(name: str, _args: tuple[Any, ...]) -> None:
            self.calls.append(name)

        return LocalApi(self.node, before_call=note)

    def golem(self, **arguments: Any) -> Golem:
        """A `Golem` on this world; arguments as for `Golem`, with a budget of 10 GLM by default."""
        return Golem(**{"budget": 10, "api": self.api(), "clock": self.clock, **arguments})
