"""Something happens at every single step of a whole life, one step per run; in any case all must end well.

A step of the simulated loop is one callback, so this is every `await` of everybody there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from shem import Service
from shem.devnet.settings import Timings
from shem.payload import VmPayload
from shem.testing import World, play
from shem.testing.link import ANY

PAYLOAD = VmPayload(image_hash="a" * 56)
WORLD = {"providers": 2, "timings": Timings(approval=0.5), "create_seconds": 0.4}
#: Longest that the end of a run may take: `shutdown()`, giving back, invoices, the allocation.
BOUND = 60 + 40 + 30 + 15


class Busy(Service):
    """Runs a few programs, and then is done."""

    async def run(self) -> AsyncIterator[Any]:
        for _turn in range(3):
            script = self._ctx.new_script()
            script.run("/bin/work")
            yield script
            await asyncio.sleep(0.2)


class Life:
    """One life, from the start of a Golem to its end, with something that happens in between."""

    def __init__(self, world: World, latency: float) -> None:
        self.world, self.faults = world, world.node.faults
        if latency:
            world.link.delay(ANY, latency)
            world.link.delay(ANY, latency, answer=True)
        self.clusters: list[Any] = []
        self.task: asyncio.Task[None] | None = None
        self.began_to_end = 0.0

    async def live(self) -> None:
        self.task = asyncio.create_task(self._live())
        await asyncio.wait([self.task])
        if not self.task.cancelled():
            self.task.result()

    async def _live(self) -> None:
        async with self.world.golem() as golem:
            self.clusters.append(await golem.run_service(Busy, payload=PAYLOAD))
            try:
                await asyncio.sleep(40)
            finally:
                self.began_to_end = asyncio.get_running_loop().time()


def later(seconds: float, action: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_later(seconds, action)


def stop(life: Life) -> None:
    for cluster in life.clusters:
        cluster.stop()


def stop_now(life: Life) -> None:
    for cluster in life.clusters:
        cluster.stop_now()


def cancel(life: Life) -> None:
    if life.task is not None:
        life.task.cancel()


def cancel_twice(life: Life) -> None:
    cancel(life)
    later(0.3, lambda: cancel(life))


def kill(life: Life) -> None:
    for activity in life.world.node.activities.all():
        life.faults.kill_activity(activity.id)


def terminate(life: Life) -> None:
    for agreement in life.world.node.agreements.all():
        life.faults.terminate_agreement(agreement.id)


def hang_for_good(life: Life) -> None:
    for activity in life.world.node.activities.all():
        life.faults.hang_activity(activity.id)


def hang_for_a_while(life: Life) -> None:
    hang_for_good(life)
    later(8, lambda: [life.faults.resume_activity(one.id) for one in life.world.node.activities.all()])


def vanish_for_a_while(life: Life) -> None:
    life.faults.vanish("devnet-1")
    later(30, lambda: life.faults.recover("devnet-1"))


def forget_demands(life: Life) -> None:
    for demand in list(life.world.node.market.subscribed()):
        life.world.node.market.unsubscribe(demand.owner, demand.id)


def cut_the_link(life: Life) -> None:
    life.world.link.up = False
    later(5, life.world.link.heal)


def steps_of(latency: float) -> int:
    async def story(world: World) -> int:
        await Life(world, latency).live()
        loop: Any = asyncio.get_running_loop()
        return int(loop.steps)

    return play(story, **WORLD)


def live_and_let(
    happen: Callable[[Life], None], step: int, latency: float, leftovers: frozenset[str] = frozenset()
) -> None:
    async def story(world: World) -> None:
        life = Life(world, latency)
        loop: Any = asyncio.get_running_loop()
        loop.at_step(step, lambda: happen(life))
        await life.live()
        assert loop.time() - life.began_to_end <= BOUND
        left = [agreement.state.value for agreement in world.node.agreements.all() if not agreement.ended]
        assert left in ([], ["Proposal"])

    play(story, leftovers=leftovers, **WORLD)


@pytest.mark.parametrize("latency", [0.0, 0.25], ids=["fast", "slow"])
@pytest.mark.parametrize(
    ("happen", "every"),
    [
        (stop, 1),
        (stop_now, 3),
        (cancel, 1),
        (cancel_twice, 3),
        (kill, 3),
        (terminate, 3),
        (hang_for_good, 4),
        (hang_for_a_while, 5),
        (vanish_for_a_while, 5),
        (forget_demands, 5),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_whatever_happens_at_whatever_step_all_ends_well(
    happen: Callable[[Life], None], every: int, latency: float
) -> None:
    # With a latency there are many more steps, and most of them are polls'.
    for step in range(1, steps_of(latency) + 1, every + bool(latency)):
        try:
            live_and_let(happen, step, latency)
        except BaseException as error:
            error.add_note(f"{happen.__name__} at step {step}")
            raise


@pytest.mark.parametrize("latency", [0.0, 0.25], ids=["fast", "slow"])
def test_a_cut_link_at_whatever_step_after_the_start_does_no_harm(latency: float) -> None:
    # Before the demand is published, the user is told at once: that is another test's story. Where the link
    # is cut between the making of an agreement and its answer, nobody knows its id; it was never sent to the
    # provider, so it costs nothing, and the node lets it expire.
    first, leftovers = 80, frozenset({"open_agreements"}) if latency else frozenset[str]()
    for step in range(first, steps_of(latency) + 1, 3):
        try:
            live_and_let(cut_the_link, step, latency, leftovers)
        except BaseException as error:
            error.add_note(f"cut_the_link at step {step}")
            raise
