"""`Golem`: puts everything together for one run, on one node.

It chooses the node, opens the client, starts the engine, makes clusters, and ends all of it in order. Nothing
below imports this module.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from types import TracebackType
from typing import Self, TypeVar

from shem.bus import Bus, Listener, Subscription
from shem.clock import Clock, SystemClock
from shem.config import NodeAddress, PaymentSettings, embedded_node, subnet_from
from shem.engine.engine import Engine, EngineSettings
from shem.engine.liveness import LivenessPace
from shem.engine.market import Market
from shem.engine.payment import Account
from shem.engine.strategy import LeastExpensive, Strategy
from shem.errors import ConfigError, ServiceDefinitionError
from shem.events import BusEvent, NodeChosen
from shem.ids import ClusterId
from shem.log import get_logger, redactor, wants_details
from shem.payload import ImageRegistry, Payload
from shem.reach import DirectReach
from shem.service.cluster import Cluster, Params, make_service, params_for
from shem.service.handlers import check_handlers
from shem.service.policy import RestartPolicy
from shem.service.probe import Probe, Reach, probes_of
from shem.service.service import Service
from shem.service.slot import Supervision
from shem.yagna.api import YagnaApi
from shem.yagna.models import DEVNET_NAME

T = TypeVar("T", bound=Service)

#: How long a service is rented for unless told otherwise.
DEFAULT_EXPIRATION = timedelta(hours=3)
#: How long a `run_service` that is under way may hold up the end of the run, in seconds.
OPENING_SECONDS = 30.0
#: Providers refuse what ends within 5 minutes (contract 4.6), and negotiating takes its time, too.
SHORTEST_EXPIRATION = timedelta(minutes=6)

_log = get_logger("golem")


class Golem:
    """The entrance: ``async with Golem(budget=1.0) as golem: cluster = await golem.run_service(…)``.

    The node is, in this order: `node`, the one that ``YAGNA_APPKEY`` and ``YAGNA_API_URL`` name, or the
    embedded devnet, which costs nothing and rents to nobody else. One log line says which.

    Args:
        budget: the most that may be spent, in GLM; set aside when the run starts.
        subnet_tag: market subnet; by default ``YAGNA_SUBNET``, else ``public``.
        payment_driver, payment_network: by default ``YAGNA_PAYMENT_DRIVER`` and ``YAGNA_PAYMENT_NETWORK``,
            else ``erc20`` on ``holesky``. `driver` and `network` are older names of the same.
        strategy: which offers to take; by default the least expensive one within caps.
        event_consumer: called for every event (`shem.events`), in a task of its own; may be a coroutine
            function.
        node: the node to use.
        api: a connection to use instead of one over HTTP, such as the test kit's; it is left open.
        liveness: when the silence of a provider becomes a finding (see `shem.engine.liveness`).
        reach: how tcp and http probes reach the services; by default directly from this machine.
        settings: everything else about how the run is conducted.

    Raises `ConfigError` where an argument is wrong. No signal handlers are installed and nothing global is
    touched, so any number of runs fit into one program.
    """

    def __init__(
        self,
        *,
        budget: float | str | Decimal,
        subnet_tag: str | None = None,
        payment_driver: str | None = None,
        payment_network: str | None = None,
        driver: str | None = None,
        network: str | None = None,
        strategy: Strategy | None = None,
        event_consumer: Listener[BusEvent] | None = None,
        node: NodeAddress | None = None,
        api: YagnaApi | None = None,
        liveness: LivenessPace | None = None,
        reach: Reach | None = None,
        settings: EngineSettings | None = None,
        clock: Clock | None = None,
    ) -> None:
        payment = PaymentSettings.make(budget, payment_driver or driver, payment_network or network)
        base = settings or EngineSettings(payment)
        self._settings = replace(
            base,
            payment=payment,
            subnet=subnet_from(subnet_tag),
            strategy=strategy or (base.strategy if settings else LeastExpensive()),
            liveness=liveness or base.liveness,
        )
        self._reach: Reach = reach or DirectReach()
        self._node = node or NodeAddress.from_environment()
        self._api = api
        self._clock = clock or SystemClock()
        self._listeners: list[tuple[Listener[BusEvent], tuple[type[BusEvent], ...]]] = []
        if event_consumer is not None:
            self._listeners.append((event_consumer, (BusEvent,)))
        self._bus = Bus()
        self._stack: AsyncExitStack | None = None
        self._engine: Engine | None = None
        self._clusters: list[Cluster[Service]] = []
        self._ending: asyncio.Task[None] | None = None
        # Held while it starts or ends, so that neither happens in the middle of the other.
        self._life = asyncio.Lock()
        self._openings: set[asyncio.Future[None]] = set()

    # --- life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect to the node and set the budget aside.

        Raises `NodeError`, `PaymentError` or `ConfigError`; then nothing is left behind. May be called again
        after `stop`.
        """
        if self._stack is not None:
            raise ConfigError("this Golem has been started already")
        stack = self._stack = AsyncExitStack()
        async with self._life:
            self._bus = Bus()
            try:
                stack.push_async_callback(self._bus.close)
                self._bus.listen(_log_event, name="log")
                for listener, kinds in self._listeners:
                    self._bus.listen(listener, *kinds)
                api, registry = await self._connect(stack)
                engine = Engine(api, self._settings, clock=self._clock, bus=self._bus, registry=registry)
                stack.push_async_callback(engine.stop)
                await engine.start()
                self._engine = engine
            except BaseException:
                self._stack = self._engine = None
                await stack.aclose()
                raise

    async def _connect(self, stack: AsyncExitStack) -> tuple[YagnaApi, ImageRegistry | None]:
        if self._api is not None:
            return self._api, None
        # Imported here: half of the library is of use without a network, and aiohttp is slow to import.
        from shem.yagna.http import HttpNode
        from shem.yagna.registry import HttpImageRegistry

        address = self._node
        if address is None:
            if (embedded := embedded_node()) is None:
                raise ConfigError("no node is configured: set YAGNA_APPKEY (and YAGNA_API_URL)")
            address = await stack.enter_async_context(embedded())
        redactor.learn(address.app_key)
        api = HttpNode(address, clock=self._clock)
        stack.push_async_callback(api.close)
        release = (await api.version()).current
        on_devnet = release.name == DEVNET_NAME
        hint = "nothing costs real money; set YAGNA_APPKEY to use a real node" if on_devnet else ""
        kind = "devnet" if on_devnet else f"yagna {release.version}"
        self._bus.emit(NodeChosen(at=self._clock.now(), kind=kind, url=address.url, hint=hint))
        # A devnet finds images in its own folder, so nothing there needs the internet.
        return api, None if on_devnet else HttpImageRegistry()

    async def stop(self) -> None:
        """End everything in order: instances, agreements, invoices, allocation, connections.

        Bounded by the time budgets of its steps; idempotent; a second call while the first is at work waits
        for it. Cancelling it does not stop it: `stop_now` makes it fast.
        """
        if self._ending is None:
            if self._stack is None:
                return
            self._ending = asyncio.get_running_loop().create_task(self._end(), name="end of the run")
        ending = self._ending
        cancelled: asyncio.CancelledError | None = None
        while not ending.done():
            try:
                await asyncio.wait([ending])
            except asyncio.CancelledError as request:
                # Leaving agreements open would cost the user money: hurry up, but see it through.
                cancelled = request
                self.stop_now()
        if self._ending is ending:
            self._ending = None
        ending.result()
        if cancelled is not None:
            raise cancelled

    def stop_now(self) -> None:
        """Wait for no `shutdown()` any more: the fast path of `stop`, and harmless without it."""
        for cluster in self._clusters:
            cluster.stop_now()

    async def _end(self) -> None:
        async with self._life:
            stack, self._stack = self._stack, None
            if stack is None:
                # The start that was waited for has failed, and left nothing behind.
                return
            try:
                clusters = asyncio.gather(*(cluster.close() for cluster in self._clusters))
                if self._openings:
                    await asyncio.wait(self._openings, timeout=OPENING_SECONDS)
                await clusters
            finally:
                await stack.aclose()

    @property
    def operative(self) -> bool:
        """Whether it has been started and not stopped."""
        return self._stack is not None and self._engine is not None

    # --- services

    async def run_service(
        self,
        service_class: type[T],
        num_instances: int | None = None,
        instance_params: Iterable[Params] | None = None,
        payload: Payload | None = None,
        expiration: datetime | timedelta | None = None,
        *,
        respawn_unstarted_instances: bool = True,
        restart: RestartPolicy | None = None,
        probe: Probe | Sequence[Probe] | None = None,
        start_timeout: float = 600.0,
        stop_timeout: float = 60.0,
        unresponsive_grace: float = 120.0,
    ) -> Cluster[T]:
        """Run instances of a service; returns at once, with all of them Pending.

        Args:
            num_instances: how many; by default as many as `instance_params`, else one.
            instance_params: constructor arguments of each instance.
            payload: what to rent; by default what the class's `get_payload` says.
            expiration: when the agreements end, as a time or from now; three hours by default. Instances are
                stopped early enough before it for `shutdown` to run.
            respawn_unstarted_instances: try a failed start again on another provider.
            restart: what happens after a failure (see `RestartPolicy`).
            probe: the service's own idea of being up, ready and well: one `Probe`, or several.
            start_timeout: budget of `start()` and of the startup probes together, in seconds.
            stop_timeout: budget of `shutdown()`, in seconds.
            unresponsive_grace: how long a silent provider is waited for, in seconds.

        Raises `ConfigError` or `ServiceDefinitionError` for arguments that make no sense, before anything is
        rented, and `NodeError` where the node refuses the demand.
        """
        self._need_engine()
        check_service_class(service_class)
        params = params_for(num_instances, instance_params)
        expires = self._expires(expiration)
        _need_positive(
            start_timeout=start_timeout, stop_timeout=stop_timeout, unresponsive_grace=unresponsive_grace
        )
        _need_kind(Payload, payload=payload)
        _need_kind(RestartPolicy, restart=restart)
        probes = probes_of(probe)
        settings = Supervision(
            respawn_unstarted=respawn_unstarted_instances,
            restart=restart or RestartPolicy(),
            probes=probes,
            reach=self._reach,
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
            unresponsive_grace=unresponsive_grace,
        )
        services = [make_service(service_class, one) for one in params]
        wanted = payload if payload is not None else await payload_of(services[0])
        engine = self._need_engine()
        market = await self._open_market(engine, wanted, expires)
        cluster = Cluster(
            ClusterId(self._clock.unique_id()[:8]),
            service_class,
            wanted,
            engine,
            market,
            settings=settings,
            clock=self._clock,
            bus=self._bus,
        )
        self._clusters.append(cluster)  # type: ignore[arg-type]  # only asked to end
        cluster.begin(params, services)
        return cluster

    async def _open_market(self, engine: Engine, payload: Payload, expires: datetime) -> Market:
        """A market that the end of the run knows of, whichever comes first."""
        opening: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._openings.add(opening)
        try:
            market = await engine.open_market(payload, expires)
            if not self.operative:
                await market.close()
                raise ConfigError("this Golem was stopped before the service could be run")
            return market
        finally:
            self._openings.discard(opening)
            opening.set_result(None)

    def _need_engine(self) -> Engine:
        if self._engine is None or not self.operative:
            raise ConfigError("this Golem is not running: use `async with Golem(…) as golem`, or `start()`")
        return self._engine

    def _expires(self, expiration: object) -> datetime:
        now = self._clock.now()
        if expiration is None:
            return now + DEFAULT_EXPIRATION
        if not isinstance(expiration, datetime | timedelta):
            raise ConfigError(f"expiration must be a datetime or a timedelta, not {expiration!r}")
        try:
            when = now + expiration if isinstance(expiration, timedelta) else expiration
        except OverflowError:
            raise ConfigError(f"expiration {expiration} is beyond the end of all calendars") from None
        if when.tzinfo is None:
            raise ConfigError(f"expiration {when} has no time zone; use datetime.now(timezone.utc) + …")
        if when <= now:
            raise ConfigError(f"expiration {when} is in the past")
        if when - now < SHORTEST_EXPIRATION:
            least = SHORTEST_EXPIRATION.total_seconds() / 60
            raise ConfigError(
                f"expiration {when} is less than {least:g} minutes ahead, which no provider agrees to"
            )
        return when.astimezone(UTC)

    # --- being watched

    def add_event_consumer(self, consumer: Listener[BusEvent], *kinds: type[BusEvent]) -> Subscription | None:
        """Call `consumer` for every event of some kinds (all, if none are named), in order.

        It has a task of its own, and may be a coroutine function.
        """
        self._listeners.append((consumer, kinds))
        return self._bus.listen(consumer, *kinds) if self._stack is not None else None

    @property
    def bus(self) -> Bus:
        """The bus of the present run."""
        return self._bus

    @property
    def clusters(self) -> list[Cluster[Service]]:
        """All clusters made so far."""
        return list(self._clusters)

    @property
    def accounts(self) -> list[Account]:
        """What each agreement of the present, or last, run has cost so far."""
        return list(self._engine.payments.accounts) if self._engine is not None else []


def check_service_class(service_class: object) -> None:
    """Refuse a class that cannot run. Raises `ServiceDefinitionError`."""
    if not isinstance(service_class, type) or not issubclass(service_class, Service):
        raise ServiceDefinitionError(f"{service_class!r} is no subclass of shem.Service")
    check_handlers(service_class)


async def payload_of(service: Service) -> Payload:
    """What a service wants to rent. Raises `ServiceDefinitionError` where it does not say."""
    wanted: object = service.get_payload()
    if inspect.isawaitable(wanted):
        wanted = await wanted
    if isinstance(wanted, Payload):
        return wanted
    raise ServiceDefinitionError(
        f"{type(service).__name__}.get_payload() gave {wanted!r}; return a payload such as "
        f"`await vm.repo(image_hash=…)`, or pass `payload=` to run_service"
    )


def _need_kind(kind: type, **values: object) -> None:
    for name, value in values.items():
        if value is not None and not isinstance(value, kind):
            raise ConfigError(f"{name} must be a shem.{kind.__name__}, not {value!r}")


def _need_positive(**seconds: object) -> None:
    for name, value in seconds.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ConfigError(f"{name} must be a number of seconds above 0, not {value!r}")


def _log_event(event: BusEvent) -> None:
    """One log line per event; moves and money at info, the rest at debug."""
    name, level = _name_and_level(type(event).__name__)
    if level == "debug" and not wants_details():
        return
    # When it happened, not when this listener came to it.
    fields = {"timestamp": event.at.isoformat(), **event.fields()}
    if "event" in fields:
        # structlog's own word for the line's name; `log.configure` puts the two in their places.
        fields["_event"] = fields.pop("event")
    getattr(_log, level)(name, **fields)


@cache
def _name_and_level(kind: str) -> tuple[str, str]:
    name = "".join(f"_{c.lower()}" if c.isupper() else c for c in kind).lstrip("_")
    return name, _LEVELS.get(kind, "debug")


_LEVELS = {
    "NodeChosen": "info",
    "InstanceCreated": "info",
    "InstanceMoved": "info",
    "ExpectationChanged": "info",
    "SlotEnded": "info",
    "AgreementSigned": "info",
    "AgreementFailed": "warning",
    "AgreementEnded": "info",
    "InvoiceAccepted": "info",
    "PaymentRefused": "warning",
    "NodeLost": "warning",
    "NodeBack": "warning",
    "StepSkipped": "warning",
}
