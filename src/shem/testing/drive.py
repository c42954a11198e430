"""Driving a plan: one whole life of a service on the real engine, supervisor and gate, in virtual time.

`drive` makes the world, runs the service, lets the plan come about, leaves the context of the `Golem`, lets
everything heal, and says what became of it and which invariants do not hold.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final, NoReturn

import structlog

from shem import props
from shem.config import PaymentSettings
from shem.devnet.agreements import Agreement
from shem.devnet.offers import cost
from shem.devnet.settings import Timings
from shem.errors import ConfigError, ShemError
from shem.events import InstanceCreated, SlotEnded
from shem.golem import Golem
from shem.payload import Payload
from shem.service.cluster import Cluster, Stopping
from shem.service.instance import Instance
from shem.service.probe import Probe
from shem.service.service import Service
from shem.testing import sim
from shem.testing.faults import Faults, PlannedLink
from shem.testing.invariants import check
from shem.testing.life import ActivityFact, AgreementFact, Happening, InstanceLife, InvoiceFact, Life, Stop
from shem.testing.limits import Limits
from shem.testing.link import ANY
from shem.testing.plan import Action, ActionKind, HandlerFaultKind, Plan
from shem.testing.runtime import Reply, Respond
from shem.testing.sim import EPOCH, SimDeadlock, SimLivelock, SimLoop
from shem.testing.subject import PROGRAM_SECONDS, Standard, Watch
from shem.testing.truth import Truth
from shem.testing.world import World
from shem.yagna.models import Invoice

#: The time budgets of every life: short, because nothing is learnt by waiting longer.
LIMITS: Final = Limits()
#: When the program leaves the context of its own accord, in seconds, unless everything is over sooner.
HORIZON: Final = 200.0
#: How long the world goes on after that, healed, so that late clean-up and bills come in, in seconds.
AFTERMATH: Final = 60.0
#: How much longer than allowed the end of the program is waited for, in seconds.
PATIENCE: Final = 600.0
#: The pace of node and providers.
TIMINGS: Final = Timings(unresponsive=2.0, abandoned=12.0)

_CREATE_SECONDS, _DEPLOY_SECONDS, _DESTROY_SECONDS = 0.4, 1.0, 0.3
_PROBE_PERIOD = 2.0


def drive(
    plan: Plan,
    service_class: type[Service] | None = None,
    respond: Respond | None = None,
    *,
    params: Mapping[str, Any] | None = None,
    payload: Payload | None = None,
    limits: Limits = LIMITS,
    world: Mapping[str, Any] | None = None,
    count_choices: bool = False,
) -> Life:
    """Live through a plan, and say what became of it.

    Args:
        service_class: the service, by default `Standard`.
        respond: how programs behave that are run on providers; by default they succeed after half a second.
        params, payload: constructor arguments and payload, as for `Golem.run_service`.
        limits: the time budgets.
        world: further arguments of the `World`.
        count_choices: count the choices between tasks, even where the plan decides none of them.

    The same plan gives the same life, in every process. Whatever the service does wrong ends up in the life;
    only what keeps it from being run at all (`ConfigError`, `ServiceDefinitionError`) is in `Life.refused`.
    """
    course = _Course(
        plan, service_class or Standard, respond or promptly, params or {}, payload, limits, world or {}
    )
    with _undisturbed(course.noticed):
        choose = course.choose if plan.deviations or count_choices else None
        try:
            sim.run(course.live, choose)
        except (AssertionError, SimDeadlock, SimLivelock) as error:
            course.noticed.append(str(error))
    life = course.life()
    return replace(life, problems=check(life, limits))


def promptly(_program: str, _args: Sequence[str]) -> Reply:
    """Every program succeeds after a while."""
    return Reply(seconds=PROGRAM_SECONDS)


@contextmanager
def _undisturbed(noticed: list[str]) -> Iterator[None]:
    """Silence the log but for bugs, and keep the garbage collector from running at moments of its own."""
    before, collecting = structlog.get_config(), gc.isenabled()

    def note(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> NoReturn:
        name = str(fields.get("event"))
        if name.endswith("_by_a_bug") or name in ("engine_task_ended", "listener_failed", "command_broke"):
            noticed.append(f"logged: {name} {fields}")
        raise structlog.DropEvent

    structlog.configure(
        processors=[note],
        wrapper_class=structlog.make_filtering_bound_logger("error"),
        cache_logger_on_first_use=False,
    )
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        structlog.configure(**before)


class _Course:
    """One life while it goes on."""

    def __init__(
        self,
        plan: Plan,
        service_class: type[Service],
        respond: Respond,
        params: Mapping[str, Any],
        payload: Payload | None,
        limits: Limits,
        world: Mapping[str, Any],
    ) -> None:
        self.plan, self.limits, self._world_arguments = plan, limits, world
        self.noticed: list[str] = []
        self._choices = 0
        self._deviations = dict(plan.deviations)
        self._params, self._payload, self._respond = params, payload, respond
        self._watch = Watch(plan.handlers)
        attributes = {"rounds": plan.rounds} if service_class is Standard else {}
        self._service_class = self._watch.over(service_class, **attributes)
        self._happened: list[Happening] = []
        self._stops: list[Stop] = []
        self._waiting: set[asyncio.Task[None]] = set()
        self._refused: BaseException | None = None
        self._left_at: float | None = None
        self._ended_at: float | None = None
        self._cluster: Cluster[Service] | None = None
        self._slots, self._slots_ended = plan.instances, 0
        self._horizon = max(HORIZON, (plan.expires or 0.0) + 1.0)
        self._ahead = sum(1 for one in plan.actions if one.at is not None and one.at < self._horizon)

    def choose(self, _tasks: int) -> int:
        """The chooser of the loop: first come, first served, but for the plan's deviations."""
        self._choices += 1
        return self._deviations.get(self._choices, 0)

    # --- inside the loop

    async def live(self) -> None:
        """The whole life."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        self._loop = loop
        loop.set_exception_handler(self._note_loose_end)
        self._link = PlannedLink(self.plan.latencies)
        self._faults = Faults(self.plan.faults, self._link)
        self._exit = asyncio.Event()
        async with World(
            self.plan.providers,
            respond=self._faults.responding(self._respond),
            timings=TIMINGS,
            create_seconds=_CREATE_SECONDS,
            deploy_seconds=_DEPLOY_SECONDS,
            destroy_seconds=_DESTROY_SECONDS,
            seed=self.plan.seed,
            **self._world_arguments,
        ) as self._world:
            self._world.link = self._link
            self._golem = self._world.golem(
                subnet_tag="public",
                driver="erc20",
                network="holesky",
                settings=self.limits.engine(PaymentSettings.make(10, "erc20", "holesky")),
            )
            self._faults.arm(self._world.node, loop)
            truth = Truth(self.plan, self._world.node, self._link, self._instances, self.limits)
            self._faults.on_recovery = truth.begin_anew
            truth.begin()
            self._program = loop.create_task(self._run_program(), name="the user's program")
            self._schedule_actions()
            await self._see_program_through()
            truth.end()
            self.noticed += truth.lies
            self._faults.heal()
            await asyncio.sleep(AFTERMATH + _stubbornness(self.plan))
            self._take_stock()

    async def _run_program(self) -> None:
        """What the user wrote."""
        try:
            async with self._golem as golem:
                try:
                    self._cluster = await golem.run_service(
                        self._service_class,
                        instance_params=[self._params] * self.plan.instances,
                        payload=self._payload,
                        expiration=timedelta(seconds=self.plan.expires) if self.plan.expires else None,
                        respawn_unstarted_instances=self.plan.respawn,
                        restart=self.plan.policy,
                        probe=self._probe(),
                        start_timeout=self.limits.start,
                        stop_timeout=self.limits.stop,
                        unresponsive_grace=self.limits.grace,
                    )
                    await self._exit_is_wanted(golem)
                finally:
                    self._left_at = self._loop.time()
        finally:
            self._ended_at = self._loop.time()

    async def _exit_is_wanted(self, golem: Golem) -> None:
        """Until the plan says so, or no slot is filled any more and the user has nothing more to do."""
        ended = golem.bus.feed(SlotEnded)

        async def count() -> None:
            async for _event in ended:
                self._slots_ended += 1
                self._exit_if_over()

        counting = self._loop.create_task(count(), name="count the slots that ended")
        try:
            async with asyncio.timeout_at(self._horizon):
                await self._exit.wait()
        except TimeoutError:
            return
        finally:
            ended.close()
            counting.cancel()

    def _exit_if_over(self) -> None:
        if self._slots_ended >= self._slots and not self._ahead:
            self._exit.set()

    def _probe(self) -> Probe | None:
        if self.plan.probe is None:
            return None
        good = self.plan.probe
        asked = 0

        def ask(_service: object) -> bool:
            nonlocal asked
            asked += 1
            return asked <= good

        return Probe(ask, period=_PROBE_PERIOD, failures=1)

    async def _see_program_through(self) -> None:
        within = self._horizon + self.limits.exit + PATIENCE
        await asyncio.wait([self._program], timeout=within)
        if not self._program.done():
            self.noticed.append(f"the program had not ended after {within:g} s")
            self._program.cancel()
            await asyncio.wait([self._program], timeout=PATIENCE)
        elif self._program.cancelled():
            self._refused = asyncio.CancelledError()
        else:
            self._refused = self._program.exception()
            if not isinstance(self._refused, ShemError | None):
                self.noticed.append(f"the program got an error that is none of shem's: {self._refused!r}")

    def _note_loose_end(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # A generator that yielded while it was closed cannot be closed again: Python gives up on it.
        ignoring = any(one.kind is HandlerFaultKind.IGNORES_CLOSE for one in self.plan.handlers)
        if "asyncgen" not in context or not ignoring:
            self.noticed.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _instances(self) -> Iterator[Instance]:
        for cluster in self._golem.clusters:
            for service in cluster.instances:
                assert isinstance(service.instance, Instance)
                yield service.instance

    # --- what the user does

    def _schedule_actions(self) -> None:
        for action in self.plan.actions:
            if action.at is not None:
                self._loop.call_at(action.at, self._act_in_time, action)
            elif action.at_call is not None:
                self._link.on_call(ANY, action.at_call, partial(self._act, action))
            elif action.at_step is not None:
                self._loop.at_step(action.at_step, partial(self._act, action))

    def _act_in_time(self, action: Action) -> None:
        self._ahead -= action.at is not None and action.at < self._horizon
        self._act(action)
        self._exit_if_over()

    def _act(self, action: Action) -> None:
        if self._program.done():
            return
        about = ""
        match action.what:
            case ActionKind.EXIT:
                self._exit.set()
            case ActionKind.CANCEL:
                self._program.cancel()
            case _ if self._cluster is None:
                return
            case ActionKind.STOP:
                self._await_stop("the cluster", self._cluster.stop())
            case ActionKind.STOP_NOW:
                self._await_stop("the cluster, at once,", self._cluster.stop_now())
            case ActionKind.STOP_INSTANCE:
                services = self._cluster.instances
                service = services[action.which % len(services)]
                self._await_stop(f"instance {service.id}", self._cluster.stop_instance(service))
                about = service.id
            case ActionKind.SPAWN:
                try:
                    self._cluster.spawn_instances(instance_params=[self._params])
                except ConfigError:
                    # It has been stopped before.
                    return
                self._slots += 1
        self._happened.append(Happening(self._loop.time(), action, about))

    def _await_stop(self, what: str, stopping: Stopping) -> None:
        """Wait for a stop, as the user may, and note down how long it takes."""
        place, at = len(self._stops), self._loop.time()
        self._stops.append(Stop(what, at, None))

        async def wait() -> None:
            await stopping
            self._stops[place] = Stop(what, at, self._loop.time())

        waiting = self._loop.create_task(wait(), name=f"stop of {what}")
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)

    # --- what became of it

    def _take_stock(self) -> None:
        node, events = self._world.node, self._world.events
        identity = node.identity.identity
        self._seconds, self._steps = self._loop.time(), self._loop.steps
        created = {event.instance: event for event in events if isinstance(event, InstanceCreated)}
        self._lives = tuple(
            InstanceLife(
                id=one.id,
                slot=one.slot,
                made_at=(created[one.id].at - EPOCH).total_seconds(),
                state=one.state,
                records=tuple(one.records),
                why=one.why(),
                error=one.error,
                replaces=created[one.id].replaces,
                activities=tuple(self._watch.activities[id(one.service)]),
                scripts=len(self._watch.scripts[id(one.service)]),
            )
            for one in self._instances()
        )
        self._agreements = tuple(_agreement_fact(one) for one in node.agreements.all())
        self._activities = tuple(
            ActivityFact(one.id, one.agreement.id, one.ended_at, one.error_message or "")
            for one in node.activities.all()
        )
        self._invoices = tuple(
            InvoiceFact(one.invoice_id, one.agreement_id, one.amount, self._owed(one), one.status)
            for one in node.documents.invoices(identity)
        )
        self._bills = (
            *((str(note.debit_note_id), note.agreement_id) for note in node.documents.notes(identity)),
            *((str(one.id), one.agreement) for one in self._invoices),
        )
        self._audit = node.audit()
        self.noticed += [
            f"the results of {script!r} were never decided"
            for scripts in self._watch.scripts.values()
            for script in scripts
            if not script.decided
        ]

    def _owed(self, invoice: Invoice) -> Decimal:
        total = Decimal(0)
        for key in invoice.activity_ids:
            activity = self._world.node.activities.find(key)
            assert activity is not None, "activities are never forgotten by the node"
            total += cost(activity.agreement.draft.properties[props.LINEAR_COEFFS], activity.usage())
        return total

    def life(self) -> Life:
        """What became of it, as values."""
        errors = [record.cause.error for one in self._lives for record in one.records]
        for held in (*errors, self._refused, *(run.error for run in self._watch.runs())):
            for error in _and_causes(held):
                # Its frames hold the whole world.
                error.__traceback__ = None
        happened = sorted((*self._faults.happened, *self._happened), key=lambda one: one.at)
        return Life(
            plan=self.plan,
            instances=self._lives,
            calls=tuple(self._link.made),
            done=tuple(self._link.done),
            lies=tuple(self._link.lies),
            handlers=self._watch.runs(),
            happened=tuple(happened),
            events=tuple(self._world.events),
            refused=self._refused,
            left_at=self._left_at,
            ended_at=self._ended_at,
            stops=tuple(self._stops),
            audit=self._audit,
            agreements=self._agreements,
            activities=self._activities,
            invoices=self._invoices,
            bills=self._bills,
            noticed=tuple(self.noticed),
            seconds=self._seconds,
            steps=self._steps,
            choices=self._choices,
        )


def _and_causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    ahead, seen = [error], set()
    while ahead:
        one = ahead.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            ahead += [one.__cause__, one.__context__]


def _stubbornness(plan: Plan) -> float:
    """How long handlers and hooks may go on at most after they have been cancelled, in seconds."""
    stubborn = (HandlerFaultKind.SWALLOWS, HandlerFaultKind.SLOW_CLEANUP)
    return sum(one.seconds * one.times for one in plan.handlers if one.kind in stubborn)


def _agreement_fact(agreement: Agreement) -> AgreementFact:
    ended = agreement.termination
    if ended is None:
        return AgreementFact(agreement.id, agreement.state.value)
    return AgreementFact(
        agreement.id,
        agreement.state.value,
        ended.terminator,
        ended.reason.message if ended.reason else "",
        (ended.event_date - EPOCH).total_seconds(),
    )
