"""An instance through every move of its table, with handlers that misbehave, in any order that can happen.

Rules are drawn from the state the instance is in, so that each move of the table gets its turn; whatever
outside parties may do at any time is thrown in between.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shem.lifecycle import SERVICE, Actor, Cause, Event, Guard, Move, State, Verdict
from shem.script import Script
from shem.service.instance import HANDLER_OF, Budgets
from shem.service.service import Service
from shem.testing.sim import SimLoop

BUDGETS = Budgets(cleanup=5.0, hook=10.0)
#: By then a handler has taken over from any earlier one: the clean-up's budget, and a little more.
SETTLED = 8.0
OUTSIDE = (Actor.USER, Actor.PROVIDER, Actor.PROBE, Actor.CLOCK, Actor.BUDGET)
GOOD = [("say", "x"), ("sleep", "3")]
BAD = [("fail", "1"), ("lose",)]


def handler(name: str) -> Any:
    """A handler that does what its inbox says, and notes when it begins and has ended."""

    async def work(self: Any):
        inbox = self.begins(name)
        try:
            while True:
                try:
                    order = await inbox.get()
                except asyncio.CancelledError:
                    if not self.stubborn:
                        raise
                    self.stubborn = False
                    yield self.script([("say", "zombie")], True)
                    raise AssertionError("a handler that was stopped goes on") from None
                match order:
                    case "end":
                        return
                    case "raise":
                        raise ValueError("as ordered")
                    case "wrong":
                        yield None
                    case commands, wait:
                        try:
                            yield self.script(commands, wait)
                        except Exception as error:
                            self.handled.append(error)
        finally:
            try:
                await asyncio.sleep(self.cleanup)
            finally:
                self.ends(name)

    return work


class Watched(Service):
    start = handler("start")
    run = handler("run")
    shutdown = handler("shutdown")

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[Any] = asyncio.Queue()
        self.active: list[str] = []
        self.begun: Counter[str] = Counter()
        self.begun_on: Counter[tuple[str, str]] = Counter()
        self.scripts: list[Script] = []
        self.handled: list[Exception] = []
        self.hooked: list[int] = []
        self.stubborn = False
        self.cleanup = 0.0

    def begins(self, name: str) -> asyncio.Queue[Any]:
        assert self.active == [], f"{name}() begins while {self.active} is at work"
        assert HANDLER_OF.get(self.state) == name, f"{name}() begins in {self.state}"
        self.active.append(name)
        self.begun[name] += 1
        self.begun_on[name, self._ctx.id] += 1
        self.inbox = asyncio.Queue()
        return self.inbox

    def ends(self, name: str) -> None:
        self.active.remove(name)

    def script(self, commands: list[tuple[str, ...]], wait: bool) -> Script:
        script = self._ctx.new_script(wait_for_results=wait)
        for command in commands:
            script.run(*command)
        self.scripts.append(script)
        return script

    async def on_running(self, move: Any) -> None:
        self.hooked.append(move.seq)

    async def on_terminated(self, move: Any) -> None:
        self.hooked.append(move.seq)
        raise ValueError("a hook's failure changes nothing")


class InstanceLife(RuleBasedStateMachine):
    stage: type[Any]
    covered: Counter[Move[State, Event]]

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[Any] = []
        self.loop = SimLoop()
        self.loop.set_exception_handler(lambda _loop, context: self.problems.append(context))
        self.past: list[tuple[Any, int]] = []

    def do(self, doing: Any) -> Any:
        return self.loop.run_until_complete(doing)

    def call(self, function: Any, *arguments: Any) -> Any:
        """Call something that is no coroutine function inside the loop."""

        async def doing() -> Any:
            return function(*arguments)

        return self.do(doing())

    # --- the instance

    @initialize()
    def first(self) -> None:
        self.one = self.stage(Watched, budgets=BUDGETS)
        self.service: Watched = self.one.service
        self.moved_at = 0.0
        self.sent_before_silence: list[Script] = []

    @precondition(lambda self: self.one.state is State.TERMINATED)
    @rule()
    def next_instance(self) -> None:
        self.past.append((self.one, len(self.one.instance.records)))
        self.first()

    # --- the table

    @rule(data=st.data())
    @precondition(lambda self: self.one.state is not State.TERMINATED)
    def move(self, data: st.DataObject) -> None:
        """One of the moves that the table has for its state, by whoever can bring it about."""
        instance = self.one.instance
        moves = [
            move
            for move in SERVICE.moves
            if move.source is instance.state
            and all(getattr(instance, guard) for guard in move.when if guard.startswith("was_"))
        ]
        move = data.draw(st.sampled_from(moves), label="move")
        actor = data.draw(
            st.sampled_from(sorted(SERVICE.raised_by[move.event], key=lambda one: one.value)), label="actor"
        )
        if actor is Actor.HANDLER and instance.state not in HANDLER_OF:
            actor = Actor.USER
        self.arrange(move)
        number = len(instance.records)
        self.do(self.bring_about(move, actor))
        record = instance.records[number]
        assert (record.source, record.event, record.dest) == (move.source, move.event, move.dest)
        assert record.cause.actor in SERVICE.raised_by[move.event]
        self.covered[move] += 1

    def arrange(self, move: Move[State, Event]) -> None:
        """See to it that this move's guards hold, and none of those that are tried before it."""
        cell = SERVICE.cell(move.source, move.event).moves
        refused = {guard for earlier in cell[: cell.index(move)] for guard in earlier.when}
        if Guard.MAY_RETRY in move.when or Guard.MAY_RETRY in refused:
            self.one.policy.retries = int(Guard.MAY_RETRY in move.when)
        elif move.event in (Event.RETRY_START, Event.START_FAILED):
            self.one.policy.retries = int(move.event is Event.RETRY_START)
        if Guard.ACTIVITY_AVAILABLE in {*move.unless, *refused} or move.event is Event.ACTIVITY_LOST:
            self.one.lease.loss = Cause(Actor.PROVIDER, "gone")

    async def bring_about(self, move: Move[State, Event], actor: Actor) -> None:
        instance, number = self.one.instance, len(self.one.instance.records)
        match move.event, actor:
            case Event.RUN_SERVICE, _:
                self.one.provide()
            case ((Event.START_SUCCESSFUL | Event.SERVICE_STOPPED), _):
                await self.tell("end")
            case Event.SHUTDOWN, Actor.HANDLER:
                # `start` and `shutdown` do not end in this event.
                await self.tell("end") if move.source is State.RUNNING else self.one.stop()
            case Event.SERVICE_ERROR, Actor.HANDLER:
                await self.tell("wrong" if len(self.service.scripts) % 2 else "raise")
            case ((Event.RETRY_START | Event.START_FAILED), _) if move.source is State.STARTING:
                if len(self.service.scripts) % 2:
                    await self.tell("raise")
                else:
                    instance.start_failed("start() overran its budget", TimeoutError("too long"))
            case Event.ACTIVITY_LOST, _:
                instance.notice_loss()
            case event, _:
                self.one.fire(event, actor)
        if len(instance.records) == number:
            async with asyncio.timeout(100):
                await instance.moved_since(number)

    async def tell(self, order: Any) -> None:
        """Order the present handler to do something, once it has begun."""
        wanted = HANDLER_OF[self.one.state]
        if self.service.active != [wanted]:
            await asyncio.sleep(SETTLED)
        assert self.service.active == [wanted]
        self.service.inbox.put_nowait(order)

    # --- what may happen at any time

    @rule(data=st.data())
    def late_event(self, data: st.DataObject) -> None:
        """Outside parties act without knowing the state; they are never refused, and never do harm."""
        instance = self.one.instance
        pairs = [
            (event, actor)
            for event in Event
            for actor in sorted(SERVICE.raised_by[event], key=lambda one: one.value)
            if actor in OUTSIDE and SERVICE.verdict(instance.state, event) is not Verdict.MOVE
        ]
        if pairs:
            event, actor = data.draw(st.sampled_from(pairs), label="event")
            number = len(instance.records)
            assert self.call(self.one.fire, event, actor) is False
            assert len(instance.records) == number

    @rule(seconds=st.sampled_from([0.0, 0.25, 1.0, 4.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    @precondition(lambda self: self.service.active != [])
    @rule(commands=st.lists(st.sampled_from([*GOOD, *BAD]), min_size=0, max_size=3))
    def script(self, commands: list[tuple[str, ...]]) -> None:
        self.service.inbox.put_nowait((commands, True))

    @precondition(lambda self: self.service.active != [])
    @rule(commands=st.lists(st.sampled_from(GOOD), max_size=2))
    def script_beside(self, commands: list[tuple[str, ...]]) -> None:
        self.service.inbox.put_nowait((commands, False))

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.5, 60.0]))
    def slow_cleanup(self, seconds: float) -> None:
        self.service.cleanup = seconds

    @rule()
    def swallow_the_next_cancellation(self) -> None:
        self.service.stubborn = True

    @precondition(lambda self: self.one.state in HANDLER_OF)
    @rule()
    def flicker(self) -> None:
        """The provider is silent and heard again in the same moment, twice."""
        state = self.one.state
        for _ in range(2):
            assert self.call(lambda: self.one.silence() and self.one.recover())
        assert self.one.state is state

    # --- what must hold

    @invariant()
    def nothing_reached_the_loop_s_exception_handler(self) -> None:
        assert self.problems == []

    @invariant()
    def the_records_are_a_path_of_the_table(self) -> None:
        here = SERVICE.initial
        for seq, record in enumerate(self.one.instance.records, 1):
            assert record.seq == seq and record.source is here
            assert any(move.dest is record.dest for move in SERVICE.cell(here, record.event).moves)
            here = record.dest
        assert self.one.state is here

    @invariant()
    def terminated_is_final(self) -> None:
        for one, number in self.past:
            assert one.state is State.TERMINATED and len(one.instance.records) == number

    @invariant()
    def handlers_run_one_at_a_time_and_no_oftener_than_they_may(self) -> None:
        service, instance = self.service, self.one.instance
        assert len(service.active) <= 1
        assert service.begun["start"] <= instance.starts
        assert max((n for (name, _id), n in service.begun_on.items() if name == "start"), default=0) <= 1
        assert service.begun["run"] <= 1 and service.begun["shutdown"] <= 1

    @invariant()
    def shutdown_runs_only_when_stopping_was_entered(self) -> None:
        entered = [record for record in self.one.instance.records if record.dest is State.STOPPING]
        assert self.service.begun["shutdown"] <= bool(entered)

    @invariant()
    def the_state_is_true(self) -> None:
        """Where a handler belongs to the state, its task is there and soon at work; elsewhere none is."""

        async def look() -> None:
            for _ in range(10):
                await asyncio.sleep(0)
            state, records = self.one.state, self.one.instance.records
            tasks = {task.get_name() for task in asyncio.all_tasks()}
            settled = not records or self.loop.time() - records[-1].monotonic > SETTLED
            if state in HANDLER_OF:
                name = HANDLER_OF[state]
                assert f"i1 {name}()" in tasks
                assert not settled or self.service.active == [name]
            elif state is not State.UNRESPONSIVE and settled:
                assert self.service.active == []
                assert not any(name.startswith("i1 ") for name in tasks)

        self.do(look())

    @invariant()
    def a_silent_provider_is_sent_nothing(self) -> None:
        begun = self.one.lease.begun
        if self.one.state is State.UNRESPONSIVE:
            if not self.sent_before_silence:
                self.sent_before_silence = [*begun, Script()]
            assert begun == self.sent_before_silence[:-1]
        else:
            self.sent_before_silence = []

    def teardown(self) -> None:
        try:
            if not hasattr(self, "one"):
                return
            self.do(self.end())
            self.do(asyncio.sleep(100))
            assert asyncio.all_tasks(self.loop) == set()
            assert self.service.active == []
            for script in self.service.scripts:
                assert not script.sent or script.results.done
                assert not script.sent or all(handle.done for handle in script._handles)
            moved = [r.seq for r in self.one.instance.records if r.dest in (State.RUNNING, State.TERMINATED)]
            assert self.service.hooked == moved
            self.nothing_reached_the_loop_s_exception_handler()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.do(asyncio.sleep(100))
            self.loop.close()

    async def end(self) -> None:
        if self.one.instance.lease is not None:
            self.one.lose()
        await self.one.end()


def test_every_move_is_made_and_the_rules_hold_whatever_else_happens(stage: type[Any]) -> None:
    machine = type("InstanceLife", (InstanceLife,), {"stage": stage, "covered": Counter()})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=120, stateful_step_count=40, suppress_health_check=list(HealthCheck), print_blob=True
        ),
    )
    missing = [move for move in SERVICE.moves if not machine.covered[move]]
    assert missing == []
