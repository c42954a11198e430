"""One instance on a stage of its own: a lease that does what a test says, in virtual time.

What the programs of a script do on the fake lease is in their names: ``say TEXT``, ``sleep SECONDS``,
``fail CODE``, ``vanish`` (the activity is gone), ``lose`` (the connection breaks, with an error that is none
of the script's family).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest

from shem.bus import Bus
from shem.errors import ActivityGone, CommandFailed, ScriptTimeout
from shem.events import InstanceMoved, Phase, PhaseChanged, ScriptFinished, ScriptSent
from shem.ids import ActivityId, ClusterId, InstanceId, NodeId
from shem.lifecycle import SERVICE, Actor, Cause, Event, State
from shem.script import CommandResult, Script
from shem.script.commands import Command, Run
from shem.service.instance import Budgets, Instance
from shem.service.service import Service
from shem.testing import SimClock
from shem.yagna.models import ActivityStateDoc


class FakeActivity:
    """An activity as a context sees it."""

    def __init__(self, number: int) -> None:
        self.id = ActivityId(f"activity-{number}")
        self.provider_id = NodeId(f"0xprovider{number}")
        self.provider_name = f"provider {number}"

    async def usage(self) -> Mapping[str, float]:
        return {"golem.usage.duration_sec": 2.5}

    async def cost(self) -> Decimal:
        return Decimal("0.25")

    async def observe(self) -> ActivityStateDoc:
        return ActivityStateDoc(state=("Ready", None))


class FakeLease:
    """What an instance runs on. `ran` are the commands that ended well, `begun` and `ended` the scripts."""

    def __init__(self, number: int = 1) -> None:
        self.activity = FakeActivity(number)
        self.loss: Cause | None = None
        self.agreement_end: Cause | None = None
        self.begun: list[Script] = []
        self.ended: list[Script] = []
        self.ran: list[str] = []

    @property
    def activity_id(self) -> ActivityId:
        return self.activity.id

    @property
    def running(self) -> list[Script]:
        return [script for script in self.begun if script not in self.ended]

    async def execute(self, script: Script, progress: Callable[[Phase], None]) -> None:
        self.begun.append(script)
        watch = asyncio.timeout(script.timeout)
        try:
            async with watch:
                for index, command in enumerate(script.commands):
                    progress(Phase.SCRIPT)
                    stdout = await self._run(script, command, index)
                    self.ran.append(str(command))
                    await script.succeed(CommandResult(index=index, command=command, stdout=stdout))
        except TimeoutError:
            if not watch.expired():
                raise
            raise ScriptTimeout(f"{script!r} took longer than {script.timeout:g} s") from None
        finally:
            self.ended.append(script)
        script.finish()

    async def _run(self, script: Script, command: Command, index: int) -> str | None:
        if self.loss is not None:
            raise ActivityGone(f"{script!r} has nowhere to run: {self.loss}")
        if not isinstance(command, Run):
            return None
        match command.program, command.args:
            case "say", args:
                return " ".join(args)
            case "sleep", (seconds,):
                await asyncio.sleep(float(seconds))
                if self.loss is not None:
                    raise ActivityGone(f"{script!r} was cut short: {self.loss}")
            case "fail", args:
                code = int(args[0]) if args else 1
                failed = CommandFailed(str(command), index, "it failed", exit_code=code, stderr="oh no")
                script.fail(failed, index)
                raise failed
            case "vanish", _:
                self.loss = Cause(Actor.PROVIDER, "it vanished")
                raise ActivityGone(f"{script!r} was cut short: {self.loss}")
            case "lose", _:
                raise ConnectionResetError("cut off")
        return None


class FakePolicy:
    """Retries as often as `retries` says."""

    def __init__(self, retries: int = 0) -> None:
        self.retries = retries
        self.asked: list[BaseException | None] = []

    def may_retry(self, instance: Instance, error: BaseException | None) -> bool:
        self.asked.append(error)
        return self.retries > 0


class Stage:
    """One instance of a service class, and everybody who may raise its events."""

    def __init__(
        self,
        service: type[Service] | Service = Service,
        *,
        retries: int = 0,
        budgets: Budgets | None = None,
    ) -> None:
        self.clock, self.bus, self.policy = SimClock(), Bus(), FakePolicy(retries)
        self.feed = self.bus.feed(InstanceMoved, PhaseChanged, ScriptSent, ScriptFinished)
        self.service = service() if isinstance(service, type) else service
        self.instance = Instance(
            InstanceId("i1"),
            ClusterId("c1"),
            0,
            self.service,
            clock=self.clock,
            bus=self.bus,
            policy=self.policy,
            budgets=budgets,
        )
        self.lease = FakeLease()
        self.leases = [self.lease]

    @property
    def state(self) -> State:
        return self.instance.state

    @property
    def path(self) -> list[str]:
        """The states it has been in."""
        return [SERVICE.initial.value, *(record.dest.value for record in self.instance.records)]

    @property
    def events(self) -> list[Event]:
        return [record.event for record in self.instance.records]

    @property
    def last(self) -> Any:
        return self.instance.records[-1]

    def heard(self, kind: type[Any]) -> list[Any]:
        """What the bus has carried of a kind so far."""
        return [event for event in self.feed._events if isinstance(event, kind)]

    # --- who does what to it

    def fire(self, event: Event, actor: Actor | None = None, error: BaseException | None = None) -> bool:
        actor = actor or min(SERVICE.raised_by[event], key=lambda one: one.value)
        return self.instance.fire(event, Cause(actor, "the test says so", error))

    def provide(self) -> FakeLease:
        """An activity is ready."""
        if self.lease.begun or self.instance.lease is not None:
            self.lease = FakeLease(len(self.leases) + 1)
            self.leases.append(self.lease)
        self.instance.run_on(self.lease, Cause(Actor.ENGINE, "an activity is ready"))
        return self.lease

    def stop(self) -> bool:
        return self.fire(Event.SHUTDOWN, Actor.USER)

    def lose(self, error: BaseException | None = None) -> None:
        """The activity is gone, and the engine tells."""
        self.lease.loss = Cause(Actor.PROVIDER, "the activity is gone", error)
        self.instance.notice_loss()

    def silence(self) -> bool:
        return self.fire(Event.PROVIDER_UNRESPONSIVE)

    def recover(self) -> bool:
        return self.fire(Event.PROVIDER_RECOVERED)

    async def until(self, *states: State, within: float = 1000.0) -> State:
        return await self.instance.wait_for(*states, timeout=within)

    async def end(self) -> list[str]:
        """See it to its end, as a slot would; names of the handlers that did not end in time."""
        if self.stop() and self.state is State.STOPPING:
            await self.until(State.TERMINATED)
        if self.state is not State.TERMINATED:
            self.lose()
        if self.state is State.PENDING:
            self.stop()
        left = await self.instance.handlers_finished()
        await self.instance.hooks_finished()
        return left


@pytest.fixture(scope="session")
def stage() -> type[Stage]:
    return Stage


@pytest.fixture(scope="session")
def fake_lease() -> type[FakeLease]:
    return FakeLease
