"""An instance through every move of its table, with handlers that misbehave, in any order that can happen.

Rules are drawn from the state the instance is in, so that each move of the table gets its turn; whatever
outside parties may do at any time is thrown in between.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, Phase, settings
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
#: How much likelier than other moves those are that lead on; without them few would live to see Running.
ONWARD = {
    Event.RUN_SERVICE: 8,
    Event.START_SUCCESSFUL: 6,
    Event.PROVIDER_UNRESPONSIVE: 3,
    Event.PROVIDER_RECOVERED: 2,
}
SUCCESS = {
    State.STARTING: Event.START_SUCCESSFUL,
    State.RUNNING: Event.SHUTDOWN,
    State.STOPPING: Event.SERVICE_STOPPED,
}
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
                    self.violations.append(f"{name}() goes on after it was stopped")
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
            self.active = [f"clean-up of {name}"]
            try:
                await asyncio.sleep(self.cleanup)
            finally:
                self.active = []

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
        self.violations: list[str] = []
        self.stubborn = False
        self.cleanup = 0.0

    def begins(self, name: str) -> asyncio.Queue[Any]:
        if self.active != [] or HANDLER_OF.get(self.state) != name:
            self.violations.append(f"{name}() begins in {self.state} during {self.active}")
        self.active = [name]
        self.begun[name] += 1
        self.begun_on[name, self._ctx.id] += 1
        self.inbox = asyncio.Queue()
        return self.inbox

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
        self.silent_since: tuple[int, list[Script]] = (0, [])

    def next_instance(self) -> None:
        self.do(self.one.instance.handlers_finished())
        self.do(self.one.instance.hooks_finished())
        self.past.append((self.one, len(self.one.instance.records)))
        self.first()

    def wait_for_clean_up(self) -> None:
        """As a slot does, before it gives a lease back."""
        self.waiting = asyncio.ensure_future(self.one.instance.handlers_finished())

    # --- the table

    @rule(data=st.data(), number=st.integers(1, 3))
    def moves(self, data: st.DataObject, number: int) -> None:
        """Moves that the table has for its state, by whoever can bring them about."""
        for _ in range(number):
            if self.one.state is State.TERMINATED:
                self.next_instance()
            instance = self.one.instance
            moves = [
                move
                for move in SERVICE.moves
                if move.source is instance.state
                and all(getattr(instance, guard) for guard in move.when if guard.startswith("was_"))
                for _ in range(ONWARD.get(move.event, 1))
            ]
            move = data.draw(st.sampled_from(moves), label="move")
            actors = sorted(SERVICE.raised_by[move.event], key=lambda one: one.value)
            actor = data.draw(st.sampled_from(actors), label="actor")
            if actor is Actor.HANDLER and instance.state not in HANDLER_OF:
                actor = Actor.USER
            self.make(move, actor)

    def make(self, move: Move[State, Event], actor: Actor) -> None:
        instance = self.one.instance
        self.arrange(move)
        number = len(instance.records)
        self.do(self.bring_about(move, actor))
        record = instance.records[number]
        assert (record.source, record.event, record.dest) == (move.source, move.event, move.dest)
        assert record.cause.actor in SERVICE.raised_by[move.event]
        self.covered[move] += 1
        if instance.state not in HANDLER_OF:
            self.call(self.wait_for_clean_up)

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
        if not self.at_work():
            await asyncio.sleep(SETTLED)
        assert self.at_work()
        self.service.inbox.put_nowait(order)

    def at_work(self) -> bool:
        """Whether the handler of the state is at work, and no earlier one that has not noticed its end."""
        name = HANDLER_OF.get(self.one.state)
        return self.service.active == [name] and self.service.begun_on[name, self.one.lease.activity_id] > 0

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

    @precondition(lambda self: self.at_work())
    @rule(commands=st.lists(st.sampled_from([*GOOD, *BAD]), min_size=0, max_size=3))
    def script(self, commands: list[tuple[str, ...]]) -> None:
        self.service.inbox.put_nowait((commands, True))

    @precondition(lambda self: self.at_work())
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

    @precondition(
        lambda self: (
            self.one.state is State.UNRESPONSIVE and self.service.active == [HANDLER_OF[self.one.last.source]]
        )
    )
    @rule()
    def end_in_silence(self) -> None:
        """The handler ends while the provider is silent: that is held back until it is heard again."""
        instance, origin = self.one.instance, self.one.last.source
        number = len(instance.records)
        self.service.inbox.put_nowait("end")
        self.do(asyncio.sleep(100))
        assert len(instance.records) == number and instance.state is State.UNRESPONSIVE
        self.call(self.one.recover)
        self.do(asyncio.wait_for(instance.moved_since(number + 1), 200))
        assert instance.records[number + 1].event is SUCCESS[origin]
        if instance.state not in HANDLER_OF:
            self.call(self.wait_for_clean_up)

    # --- what must hold

    @invariant()
    def all_rules_hold(self) -> None:
        self.nothing_reached_the_loop_s_exception_handler()
        self.the_records_are_a_path_of_the_table()
        self.terminated_is_final()
        self.handlers_run_one_at_a_time_and_no_oftener_than_they_may()
        self.shutdown_runs_only_when_stopping_was_entered()
        self.the_state_is_true()
        self.a_silent_provider_is_sent_nothing()

    def nothing_reached_the_loop_s_exception_handler(self) -> None:
        assert self.problems == []

    def the_records_are_a_path_of_the_table(self) -> None:
        here = SERVICE.initial
        for seq, record in enumerate(self.one.instance.records, 1):
            assert record.seq == seq and record.source is here
            assert any(move.dest is record.dest for move in SERVICE.cell(here, record.event).moves)
            here = record.dest
        assert self.one.state is here

    def terminated_is_final(self) -> None:
        for one, number in self.past:
            assert one.state is State.TERMINATED and len(one.instance.records) == number

    def handlers_run_one_at_a_time_and_no_oftener_than_they_may(self) -> None:
        service, instance = self.service, self.one.instance
        assert service.violations == []
        assert service.begun["start"] <= instance.starts
        assert max((n for (name, _id), n in service.begun_on.items() if name == "start"), default=0) <= 1
        assert service.begun["run"] <= 1 and service.begun["shutdown"] <= 1

    def shutdown_runs_only_when_stopping_was_entered(self) -> None:
        entered = [record for record in self.one.instance.records if record.dest is State.STOPPING]
        assert self.service.begun["shutdown"] <= bool(entered)

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

    def a_silent_provider_is_sent_nothing(self) -> None:
        moment = len(self.one.instance.records)
        if self.one.state is State.UNRESPONSIVE and self.silent_since[0] == moment:
            assert self.one.lease.begun == self.silent_since[1]
        self.silent_since = moment, list(self.one.lease.begun)

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


def path_to(goal: Move[State, Event]) -> list[Move[State, Event]]:
    """A shortest way from the beginning to a move, and the move itself."""
    origin_of = {f"was_{state.value}": state for state in HANDLER_OF}
    ahead: list[tuple[State, State | None, list[Move[State, Event]]]] = [(SERVICE.initial, None, [])]
    while True:
        here, origin, path = ahead.pop(0)
        for move in SERVICE.moves:
            if move.source is here and all(origin_of.get(guard, origin) is origin for guard in move.when):
                if move is goal:
                    return [*path, move]
                came_from = here if move.dest is State.UNRESPONSIVE else origin
                ahead.append((move.dest, came_from, [*path, move]))


def test_every_move_is_made_and_the_rules_hold_whatever_else_happens(stage: type[Any]) -> None:
    life = type("InstanceLife", (InstanceLife,), {"stage": stage, "covered": Counter()})
    run_state_machine_as_test(
        life,
        settings=settings(
            max_examples=4000,
            stateful_step_count=40,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            phases=[phase for phase in Phase if phase is not Phase.explain],
        ),
    )
    missing = [move for move in SERVICE.moves if not life.covered[move]]
    assert len(missing) < 8, "the walk at random has to see nearly all of the table by itself"
    for goal in missing:
        walk = life()
        walk.first()
        for move in path_to(goal):
            walk.make(move, min(SERVICE.raised_by[move.event], key=lambda one: one.value))
            walk.all_rules_hold()
        walk.teardown()
    assert set(life.covered) == set(SERVICE.moves)
