"""The test kit's world: its link does what was ordered, and its verdict misses nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from shem.devnet.audit import Audit
from shem.errors import (
    BadRequest,
    Gone,
    NodeError,
    NodeFailure,
    NodeUnavailable,
    NotFound,
    RequestTimeout,
    Unauthorized,
)
from shem.events import ActivityCreated, AgreementEnded, AgreementSigned, InvoiceAccepted
from shem.ids import ActivityId, AgreementId, AllocationId, DebitNoteId, InvoiceId, NodeId
from shem.lifecycle import Actor, Cause, Event, Record, State
from shem.testing import Reply, World, play, run
from shem.testing.verify import faults_of_audit, faults_of_events, faults_of_records
from shem.yagna.models import DemandSpec

AT = datetime(2030, 1, 1, tzinfo=UTC)
DEMAND = DemandSpec(properties={}, constraints="(golem.node.id.name=nobody)")


def on_world(story: Callable[[World], Awaitable[Any]], **arguments: Any) -> Any:
    async def main() -> Any:
        async with World(**arguments) as world:
            return await story(world)

    return run(main)


# --- the link


def test_calls_are_noted_down_with_those_that_fail() -> None:
    async def story(world: World) -> list[str]:
        api = world.api()
        world.link.fail("subscribe")
        await api.me()
        with pytest.raises(NodeFailure):
            await api.subscribe(DEMAND)
        await api.subscribe(DEMAND)
        return world.calls

    assert on_world(story) == ["me", "subscribe", "subscribe"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (BadRequest, 400),
        (Unauthorized, 401),
        (NotFound, 404),
        (RequestTimeout, 408),
        (Gone, 410),
        (NodeFailure, 500),
        (NodeUnavailable, None),
    ],
)
def test_a_call_that_was_told_to_fail_has_no_effect(kind: type[NodeError], status: int | None) -> None:
    async def story(world: World) -> None:
        world.link.fail("subscribe", kind, times=2)
        for _time in range(2):
            with pytest.raises(kind) as caught:
                await world.api().subscribe(DEMAND)
            assert (caught.value.call, caught.value.status) == ("subscribe", status)
        assert world.node.audit().clean
        await world.api().subscribe(DEMAND)

    on_world(story)


def test_a_call_that_is_cut_has_its_effect() -> None:
    async def story(world: World) -> None:
        world.link.cut("subscribe")
        with pytest.raises(NodeUnavailable) as caught:
            await world.api().subscribe(DEMAND)
        assert not caught.value.unsent
        assert len(world.node.audit().open_demands) == 1

    on_world(story)


@pytest.mark.parametrize("answer", [False, True])
def test_a_call_is_delayed_before_its_effect_or_after_it(answer: bool) -> None:
    async def story(world: World) -> None:
        world.link.delay("subscribe", 5.0, times=1, answer=answer)
        calling = asyncio.create_task(world.api().subscribe(DEMAND))
        await asyncio.sleep(4)
        assert not calling.done()
        assert len(world.node.audit().open_demands) == answer
        await calling
        assert asyncio.get_running_loop().time() == 5
        await world.api().subscribe(DEMAND)
        assert asyncio.get_running_loop().time() == 5

    on_world(story)


def test_while_the_link_is_down_nothing_gets_through_and_no_answer_either() -> None:
    async def story(world: World) -> None:
        world.link.delay("subscribe", 2.0)
        under_way = asyncio.create_task(world.api().subscribe(DEMAND))
        await asyncio.sleep(1)
        world.link.up = False
        with pytest.raises(NodeUnavailable) as caught:
            await world.api().me()
        assert caught.value.unsent
        with pytest.raises(NodeUnavailable):
            await under_way
        world.link.heal()
        await world.api().me()

    on_world(story)


def test_healing_lets_what_hangs_go_on() -> None:
    async def story(world: World) -> None:
        world.link.delay("*", math.inf)
        hanging = asyncio.create_task(world.api().me())
        await asyncio.sleep(1000)
        world.link.heal()
        await hanging
        assert asyncio.get_running_loop().time() == 1000

    on_world(story)


def test_something_can_be_done_at_a_call_with_a_number() -> None:
    async def story(world: World) -> list[int]:
        seen: list[int] = []
        world.link.at_call(3, lambda: seen.append(len(world.calls)))
        for _time in range(5):
            await world.api().me()
        return seen

    assert on_world(story) == [3]


def test_something_can_be_done_at_a_step_of_the_loop() -> None:
    async def story(_world: World) -> list[float]:
        seen: list[float] = []
        loop: Any = asyncio.get_running_loop()
        loop.at_step(loop.steps + 3, lambda: seen.append(loop.time()))
        for _time in range(5):
            await asyncio.sleep(1)
        return seen

    assert len(on_world(story)) == 1


# --- the providers


def test_runtimes_take_the_time_that_was_set_and_programs_behave_as_told() -> None:
    from shem import Service, State
    from shem.payload import VmPayload

    class Asks(Service):
        async def run(self) -> Any:
            script = self._ctx.new_script()
            script.run("/say", "hello")
            result = yield script
            self.said = (await result)[0].stdout

    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Asks, payload=VmPayload(image_hash="a" * 56))
            [service] = cluster.instances
            await service.wait_for(State.TERMINATED)
            starting, running, _stopping, _terminated = (record.monotonic for record in service.records)
            assert 3 <= starting < 4
            assert running - starting == pytest.approx(20)
            assert service.said == "hello"

    play(
        story,
        respond=lambda _program, args: Reply(stdout=" ".join(args), seconds=2.0),
        create_seconds=3.0,
        deploy_seconds=20.0,
        destroy_seconds=1.0,
    )


# --- the verdict


def record(seq: int, source: State, event: Event, dest: State, actor: Actor, when: float = 0.0) -> Any:
    return Record(seq, "i", AT, when, source, event, dest, Cause(actor))


GOOD = (
    record(1, State.PENDING, Event.RUN_SERVICE, State.STARTING, Actor.ENGINE),
    record(2, State.STARTING, Event.START_SUCCESSFUL, State.RUNNING, Actor.HANDLER, 1.0),
    record(3, State.RUNNING, Event.ACTIVITY_LOST, State.TERMINATED, Actor.PROVIDER, 2.0),
)


def test_records_that_are_a_path_of_the_table_are_faultless() -> None:
    assert faults_of_records(GOOD) == []
    assert faults_of_records([]) == []


@pytest.mark.parametrize(
    ("place", "change", "words"),
    [
        (0, {"source": State.RUNNING}, "begins in running, the one before ended in pending"),
        (1, {"seq": 5}, "should have number 2"),
        (1, {"dest": State.STOPPING}, "the table has no such move"),
        (2, {"cause": Cause(Actor.USER)}, "ActivityLost raised by user"),
        (2, {"monotonic": 0.5}, "is earlier than the one before"),
    ],
)
def test_records_that_are_none_are_told(place: int, change: dict[str, Any], words: str) -> None:
    records = list(GOOD)
    records[place] = replace(records[place], **change)
    assert any(words in fault for fault in faults_of_records(records))


def test_what_began_and_did_not_end_is_told() -> None:
    agreement, activity = AgreementId("g"), ActivityId("a")
    signed = AgreementSigned(at=AT, agreement=agreement, provider=NodeId("0x"), provider_name="x")
    created = ActivityCreated(at=AT, activity=activity, agreement=agreement)
    ended = AgreementEnded(at=AT, agreement=agreement, provider=NodeId("0x"), by="x", reason="")
    assert faults_of_events([signed, created, ended]) == ["activity a was created and never ended"]
    assert faults_of_events([signed]) == ["agreement g was signed and never ended"]


def test_what_is_left_over_is_told_but_for_what_may_be() -> None:
    audit = Audit(
        open_allocations=(AllocationId("x"),),
        open_invoices=(InvoiceId("y"),),
        open_debit_notes=(DebitNoteId("z"),),
    )
    assert faults_of_audit(Audit()) == []
    assert faults_of_audit(audit, {"open_invoices", "open_debit_notes"}) == ["left over: open allocations x"]


def test_a_story_that_forgets_to_stop_is_found_out() -> None:
    async def story(world: World) -> None:
        golem = world.golem()
        await golem.start()
        with pytest.raises(AssertionError, match=r"(?s)has not been stopped.*left over: open allocations"):
            world.verify()
        await golem.stop()
        world.verify()

    on_world(story)


def test_a_story_that_pays_what_was_not_billed_is_found_out() -> None:
    async def story(world: World) -> None:
        world.events.append(
            InvoiceAccepted(at=AT, invoice=InvoiceId("i"), agreement=AgreementId("g"), amount=Decimal(3))
        )
        with pytest.raises(AssertionError, match="invoices of 3 GLM were accepted, 0 are paid"):
            world.verify()

    on_world(story)


def test_a_story_gives_its_result() -> None:
    async def story(world: World) -> str:
        return (await world.api().me()).name

    assert play(story) == "devnet"
