"""A simulated Golem Network: a node with providers, reached in process and in virtual time.

The node is the devnet's own core, so its agreements, activities and invoices obey the same rules; only the
HTTP in between and the processes on the providers are missing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Self, TypeVar

from shem.devnet.local import LocalApi
from shem.devnet.node import Node
from shem.devnet.settings import ProviderSettings, Timings
from shem.devnet.transfer import Fetcher
from shem.events import BusEvent
from shem.golem import Golem
from shem.lifecycle import State
from shem.testing import sim
from shem.testing.link import Link
from shem.testing.runtime import Durations, Reply, Respond, ScriptedFactory, Unwritten
from shem.testing.sim import Chooser, SimClock
from shem.testing.verify import faults_of_audit, faults_of_events, faults_of_payments, faults_of_records

T = TypeVar("T")


def silent(_program: str, _args: Sequence[str]) -> Reply:
    """Every program succeeds at once and writes nothing."""
    return Reply()


class World:
    """The world of one test. Use it inside `sim.run`, as ``async with World() as world``, or through `play`.

    Args:
        providers: how many, or the settings of each.
        respond: how programs behave that are run on them.
        unwritten: what files hold that nobody wrote; without it there are none.
        fetcher: what providers find at http(s) URLs; without it, nothing.
        timings: the pace of node and providers.
        create_seconds, deploy_seconds, destroy_seconds: how long providers take to make an activity, to
            deploy it, and to take it down.
        seed: of its chance and ids.

    Attributes:
        clock: its time and chance.
        node: the simulated node; its `faults` break things on order, its `audit()` tells what is left over.
        link: the way between requestor and node, and its faults.
        golems: every `Golem` that was made on it.
        events: everything its `Golem`s have told so far.
    """

    def __init__(
        self,
        providers: int | Sequence[ProviderSettings] = 3,
        *,
        respond: Respond = silent,
        unwritten: Unwritten | None = None,
        fetcher: Fetcher | None = None,
        timings: Timings | None = None,
        create_seconds: float = 0.0,
        deploy_seconds: float = 0.0,
        destroy_seconds: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.clock = SimClock(seed)
        self.link = Link()
        self.events: list[BusEvent] = []
        self.golems: list[Golem] = []
        self.node = Node(
            ScriptedFactory(respond, Durations(create_seconds, deploy_seconds, destroy_seconds), unwritten),
            providers=providers,
            timings=timings,
            clock=self.clock,
            fetcher=fetcher,
        )

    async def __aenter__(self) -> Self:
        await self.node.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.node.aclose()

    @property
    def calls(self) -> list[str]:
        """Names of the node calls made so far, in order."""
        return self.link.calls

    def api(self) -> LocalApi:
        """A connection to the node over the link, as the engine uses it."""
        return LocalApi(
            self.node,
            before_call=self.link.before_call,
            after_call=self.link.after_call,
            during_call=self.link.during_call,
        )

    def golem(self, **arguments: Any) -> Golem:
        """A `Golem` on this world; arguments as for `Golem`, with a budget of 10 GLM by default."""
        golem = Golem(**{"budget": 10, "api": self.api(), "clock": self.clock, **arguments})
        golem.add_event_consumer(self.events.append)
        self.golems.append(golem)
        return golem

    def verify(self, leftovers: Collection[str] = ()) -> None:
        """See to it that a story has ended well; call it when all its `Golem`s have been stopped.

        Raises `AssertionError` where an instance is not Terminated or its records are no path of the table,
        an agreement or activity was not ended, something is left over on the node, or payments differ from
        bills. `leftovers` names the fields of `Audit` that cannot be empty after what happened.
        """
        faults = []
        for golem in self.golems:
            if golem.operative:
                faults.append("a Golem has not been stopped")
            for service in (one for cluster in golem.clusters for one in cluster.instances):
                if service.state is not State.TERMINATED:
                    faults.append(f"not terminated: {service.why()}")
                faults += faults_of_records(service.records)
        faults += faults_of_events(self.events)
        faults += faults_of_payments(self.node, self.events)
        faults += faults_of_audit(self.node.audit(), leftovers)
        if faults:
            raise AssertionError("the story did not end well:\n  " + "\n  ".join(faults))


def play(
    story: Callable[[World], Awaitable[T]],
    *,
    leftovers: Collection[str] = (),
    choose: Chooser | None = None,
    **world: Any,
) -> T:
    """Play a story in a world of its own, from beginning to end, and verify how it ended.

    Args:
        story: called with the world; it stops what it has started.
        leftovers: see `World.verify`.
        choose: see `sim.run`.
        world: arguments of `World`.
    """

    async def whole() -> T:
        async with World(**world) as stage:
            result = await story(stage)
            stage.verify(leftovers)
            return result

    return sim.run(whole, choose)
