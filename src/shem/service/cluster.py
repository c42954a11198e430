"""`Cluster`: the handle on all instances of one Service class."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from shem.bus import Bus
from shem.clock import Clock
from shem.engine.engine import Engine
from shem.engine.market import Market
from shem.errors import ConfigError, ServiceDefinitionError, WaitError
from shem.events import (
    ClusterEvent,
    ClusterStarted,
    ClusterStopped,
    InstanceCreated,
    InstanceMoved,
    Phase,
    PhaseChanged,
    SlotEnded,
)
from shem.ids import ClusterId, InstanceId
from shem.lifecycle import Actor, Cause, Event, Record, State
from shem.payload import Payload
from shem.service.instance import Budgets, Instance
from shem.service.service import Service
from shem.service.slot import Slot, Supervision
from shem.service.supervisor import Supervisor

T = TypeVar("T", bound=Service)

Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StopReport:
    """How a stop went: what had to be skipped to keep within its time budgets; mostly nothing."""

    skipped: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether everything was done."""
        return not self.skipped


class Stopping:
    """A stop under way. Awaiting it is optional, and gives the `StopReport`."""

    def __init__(self, report: Callable[[], Any]) -> None:
        self._report = report

    def __await__(self) -> Generator[Any, None, StopReport]:
        result: StopReport = yield from self._report().__await__()
        return result


class Cluster(Generic[T]):
    """All instances of one Service class; made by `Golem.run_service`.

    Attributes:
        id: its id.
        service_class, payload: what runs, and on what.
        expiration: when its agreements end, in UTC; its instances are stopped before.
    """

    def __init__(
        self,
        cluster_id: ClusterId,
        service_class: type[T],
        payload: Payload,
        engine: Engine,
        market: Market,
        *,
        settings: Supervision,
        budgets: Budgets | None = None,
        clock: Clock,
        bus: Bus,
    ) -> None:
        self.id, self.service_class, self.payload = cluster_id, service_class, payload
        self._engine, self._market, self._budgets = engine, market, budgets or Budgets()
        self._clock, self._bus = clock, bus
        self._params: list[Params] = []
        self._services: dict[InstanceId, T] = {}
        self._newborn: T | None = None
        self._stopped = asyncio.Event()
        self._stop_requested = False
        self._supervisor = Supervisor(
            cluster_id,
            self._make,
            engine,
            market,
            settings=settings,
            clock=clock,
            bus=bus,
            on_idle=self._idle,
        )

    # --- instances

    @property
    def expiration(self) -> datetime:
        """When its agreements end, in UTC."""
        return self._market.expires

    @property
    def instances(self) -> list[T]:
        """The service object of every instance there ever was, in the order of their making."""
        return list(self._services.values())

    @property
    def current(self) -> list[T]:
        """The service object of each slot's present, or last, instance."""
        return [self._services[slot.instance.id] for slot in self._supervisor.slots]

    def spawn_instances(
        self, num_instances: int | None = None, instance_params: Iterable[Params] | None = None
    ) -> list[T]:
        """Add slots, one per instance; returns the new instances, all Pending.

        Raises `ConfigError` where the numbers make no sense or the cluster has been stopped, and whatever the
        class's constructor raises; then nothing has been added.
        """
        if self._supervisor.stopping:
            raise ConfigError(f"cluster {self.id} has been stopped; run the service anew")
        params = params_for(num_instances, instance_params)
        services = [make_service(self.service_class, one) for one in params]
        self._fill(params, services)
        return services

    def begin(self, params: Sequence[Params], services: Sequence[T]) -> None:
        """Begin, with a slot for each of some services that have just been made with these parameters."""
        self._bus.emit(
            ClusterStarted(
                at=self._clock.now(),
                cluster=self.id,
                service=self.service_class.__name__,
                slots=len(services),
                expires=self.expiration,
            )
        )
        self._fill(params, services)

    def _fill(self, params: Sequence[Params], services: Sequence[T]) -> None:
        for one, service in zip(params, services, strict=True):
            self._params.append(one)
            self._newborn = service
            self._supervisor.add_slot()

    def _make(self, slot: Slot, replaces: Instance | None) -> Instance:
        service, self._newborn = self._newborn, None
        if service is None:
            service = make_service(self.service_class, self._params[slot.number])
        instance = Instance(
            InstanceId(self._clock.unique_id()[:12]),
            self.id,
            slot.number,
            service,
            clock=self._clock,
            bus=self._bus,
            policy=slot,
            budgets=self._budgets,
        )
        instance.replaces = replaces.id if replaces else None
        self._services[instance.id] = service
        self._bus.emit(
            InstanceCreated(
                at=self._clock.now(),
                cluster=self.id,
                instance=instance.id,
                slot=slot.number,
                service=self.service_class.__name__,
                replaces=replaces.id if replaces else None,
            )
        )
        return instance

    # --- stopping

    def stop(self, reason: str = "the cluster was stopped") -> Stopping:
        """Stop all instances, in whatever state they are, and fill no slot any more.

        Takes effect at once; await the result to wait for the end, which the budgets of `shutdown()` and of
        giving leases back bound. Calling it again changes nothing.
        """
        if not self._stop_requested:
            self._stop_requested = True
            self._supervisor.stop_all(Cause(Actor.USER, reason))
        return Stopping(self._finish)

    def stop_now(self) -> Stopping:
        """The fast path: as `stop`, but no `shutdown()` is waited for."""
        stopping = self.stop()
        self._supervisor.hurry()
        return stopping

    def stop_instance(self, service: T, reason: str = "the instance was stopped") -> Stopping:
        """Stop one instance, in whatever state it is; its slot stays empty.

        As with `stop`, awaiting the result is optional. Changes nothing where another instance has taken its
        place. Raises `ConfigError` where it is none of this cluster's.
        """
        instance = service.instance
        if not isinstance(instance, Instance) or instance.id not in self._services:
            raise ConfigError(f"{service!r} is no instance of cluster {self.id}")
        slot = self._supervisor.stop(instance, Cause(Actor.USER, reason))

        async def report() -> StopReport:
            if slot is None:
                return StopReport()
            self._refuse_handlers(instance)
            await slot.wait_ended()
            return StopReport(tuple(slot.skipped))

        return Stopping(report)

    async def _finish(self) -> StopReport:
        self._refuse_handlers(*(slot.instance for slot in self._supervisor.slots))
        skipped = await self._supervisor.finished()
        await self._stopped.wait()
        return StopReport(tuple(skipped))

    def _refuse_handlers(self, *instances: Instance) -> None:
        """Refuse to let a `shutdown()` wait for its own end. (Other handlers are cancelled by the stop.)"""
        task = asyncio.current_task()
        if task is None or task.cancelling():
            return
        for instance in instances:
            if instance.runs_in(task):
                raise WaitError(
                    f"{instance.subject}: its own handler waits for it to be stopped, which would wait for "
                    f"ever; call stop() without awaiting it"
                )

    def _idle(self) -> None:
        """No slot is kept any more. A cluster that nobody has stopped may still get new ones."""
        if self._supervisor.stopping and not self._stopped.is_set():
            self._stopped.set()
            self._bus.emit(ClusterStopped(at=self._clock.now(), cluster=self.id))

    async def close(self) -> StopReport:
        """Stop, wait for the end, and withdraw the demand. Idempotent."""
        try:
            return await self.stop("the run ended")
        finally:
            await self._market.close()

    # --- waiting

    async def wait_until(
        self, *states: State, timeout: float | None = None, count: int | None = None
    ) -> None:
        """Wait until the instances of all slots (or of `count` of them) are in one of some states.

        Raises `WaitError` once too few of them can get there, `TimeoutError` after `timeout` seconds.
        """
        wanted = frozenset(states)
        if not wanted:
            raise WaitError(f"{self!r}: wait_until() needs at least one state")
        names = " or ".join(state.value for state in State if state in wanted)
        await self._until(lambda instance: instance.state in wanted, names, timeout, count)

    async def wait_until_ready(self, *, timeout: float | None = None, count: int | None = None) -> None:
        """Wait until the instances of all slots (or of `count` of them) are ready (see `Service.is_ready`).

        Raises `WaitError` once too few of them can get there, `TimeoutError` after `timeout` seconds.
        """
        await self._until(lambda instance: instance.is_ready, "ready", timeout, count)

    async def _until(
        self, holds: Callable[[Instance], bool], what: str, timeout: float | None, count: int | None
    ) -> None:
        needed = len(self._params) if count is None else count
        news = self._bus.feed(InstanceMoved, SlotEnded, PhaseChanged, where=self._may_matter)
        try:
            async with asyncio.timeout(timeout):
                while not self._enough(holds, what, needed):
                    await anext(news)
        except StopAsyncIteration:
            raise WaitError(f"{self!r}: the run ended while it was waited for") from None
        finally:
            news.close()

    def _may_matter(self, event: ClusterEvent) -> bool:
        """Whether an event can end a waiting; of progress inside a state only readiness can."""
        readiness = (Phase.READY, Phase.NOT_READY)
        progress = isinstance(event, PhaseChanged) and event.phase not in readiness
        return event.cluster == self.id and not progress

    def _enough(self, holds: Callable[[Instance], bool], what: str, needed: int) -> bool:
        slots = self._supervisor.slots
        if sum(holds(slot.instance) for slot in slots) >= needed:
            return True
        hopeless = [slot.instance for slot in slots if slot.ended and not holds(slot.instance)]
        if len(slots) - len(hopeless) < needed:
            stories = "\n".join(instance.why() for instance in hopeless)
            raise WaitError(f"{self!r}: too few instances can still become {what}:\n{stories}")
        return False

    async def moves(self) -> AsyncIterator[Record[State, Event]]:
        """All moves of its instances from now on; ends when the cluster has been stopped."""
        feed = self._bus.feed(InstanceMoved, where=lambda event: event.cluster == self.id)
        ending = asyncio.get_running_loop().create_task(self._stopped.wait(), name=f"end of {self.id}")
        ending.add_done_callback(lambda _task: feed.close())
        try:
            async for event in feed:
                yield event.record
        finally:
            feed.close()
            ending.cancel()

    def __repr__(self) -> str:
        return f"<Cluster {self.id} of {len(self._params)} {self.service_class.__name__}>"


def params_for(num_instances: int | None, instance_params: Iterable[Params] | None) -> list[Params]:
    """Constructor arguments of each instance to be made. Raises `ConfigError` where they make no sense."""
    if num_instances is not None:
        if isinstance(num_instances, bool) or not isinstance(num_instances, int):
            raise ConfigError(f"num_instances must be a whole number, not {num_instances!r}")
        if num_instances < 1:
            raise ConfigError(f"num_instances must be at least 1, not {num_instances}")
    if instance_params is None:
        return [{} for _ in range(1 if num_instances is None else num_instances)]
    params: list[Params] = []
    if not isinstance(instance_params, Iterable):
        raise ConfigError(f"instance_params must be mappings, one for each instance, not {instance_params!r}")
    for one in instance_params:
        if num_instances is not None and len(params) == num_instances:
            break
        if not isinstance(one, Mapping):
            raise ConfigError(f"instance_params: item {len(params)} is no mapping, but {one!r}")
        params.append(dict(one))
    if num_instances is not None and len(params) < num_instances:
        raise ConfigError(f"instance_params holds {len(params)} items for {num_instances} instances")
    if not params:
        raise ConfigError("instance_params is empty: no instance would be made")
    return params


def make_service(service_class: type[T], params: Params) -> T:
    """A service object. Raises `ConfigError` where the class does not take the parameters."""
    try:
        return service_class(**params)
    except TypeError as error:
        raise ServiceDefinitionError(
            f"{service_class.__name__} cannot be made with instance_params {dict(params)!r}: {error}"
        ) from error
