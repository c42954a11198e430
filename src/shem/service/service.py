"""`Service`: the class that users subclass.

A subclass says what to rent (`get_payload`) and what to do while starting, running and stopping (`start`,
`run`, `shutdown`: async generators that yield scripts). One object is one instance; it survives a retried
start (`reset` is called in between) but is never used again once Terminated.

A subclass may also define ``async def on_<state>(self, move)`` for any of the six states. A hook is
called after the move, in a task of its own with a time limit; it cannot veto, and its failure changes
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from shem.errors import CommandFailed, LifecycleError
from shem.events import Phase
from shem.ids import InstanceId, NodeId
from shem.lifecycle import Event, Record, State
from shem.payload import Payload
from shem.service.context import WorkContext
from shem.service.handlers import HANDLERS, Handler, streaming


class InstanceView(Protocol):
    """What a service needs of the instance that it is."""

    @property
    def id(self) -> InstanceId:
        """Its id."""

    @property
    def state(self) -> State:
        """Where it is."""

    @property
    def phase(self) -> Phase | None:
        """Its progress inside that state."""

    @property
    def is_ready(self) -> bool:
        """Whether it is Running and its readiness probe, if it has one, passes."""

    @property
    def records(self) -> Sequence[Record[State, Event]]:
        """All its moves."""

    @property
    def context(self) -> WorkContext | None:
        """Its activity, while it has one."""

    @property
    def error(self) -> BaseException | None:
        """The first error that made it leave the path of success."""

    def can(self, event: Event) -> bool:
        """Whether the table has a move for an event, in this state."""

    def open_events(self) -> tuple[Event, ...]:
        """Events that can move it, in this state."""

    async def wait_for(self, *states: State, timeout: float | None = None) -> State:
        """Wait until it is in one of some states."""

    def why(self) -> str:
        """What happened to it, in a few lines."""


class Service:
    """Base of all services.

    Attributes:
        _ctx: the activity's `WorkContext` while there is one; handlers build their scripts with it.
    """

    _ctx: WorkContext = None  # type: ignore[assignment]  # set before any handler runs, as handlers rely on
    _instance: InstanceView | None = None

    #: Environment of everything the runtime runs; sent with the default deploy.
    deploy_env: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in HANDLERS:
            if name in cls.__dict__:
                setattr(cls, name, streaming(cls.__dict__[name]))

    # --- to be overridden

    @staticmethod
    async def get_payload() -> Payload | None:
        """What to rent. May be a static, class or ordinary method; None where `run_service` is told."""
        return None

    def get_deploy_args(self) -> dict[str, Any]:
        """Options of the default `start`'s deploy command (contract 3.4.4)."""
        return {"env": dict(self.deploy_env)} if self.deploy_env else {}

    @streaming
    async def start(self) -> Handler:
        """Set the service up. By default: deploy the image and start the runtime, in one script."""
        script = self._ctx.new_script()
        script.deploy(**self.get_deploy_args())
        script.start()
        yield script

    @streaming
    async def run(self) -> Handler:
        """Keep the service going; when it ends, the instance stops. By default: wait for ever."""
        await asyncio.get_running_loop().create_future()
        yield self._ctx.new_script()

    @streaming
    async def shutdown(self) -> Handler:
        """Clean up, while the activity is still there. By default: take the runtime down, if there is one."""
        script = self._ctx.new_script()
        script.terminate()
        try:
            yield script
        except CommandFailed:
            # It was stopped before it was deployed; the activity is destroyed in any case.
            return

    async def reset(self) -> None:
        """Forget what a failed start has left in this object. Called before `start` is tried again."""

    # --- to be read

    @property
    def instance(self) -> InstanceView:
        """The instance this object is. Raises `LifecycleError` where no cluster has made it one."""
        if self._instance is None:
            raise LifecycleError(
                f"this {type(self).__name__} is no instance: services are made by `golem.run_service(…)`"
            )
        return self._instance

    @property
    def id(self) -> InstanceId:
        """Id of the instance."""
        return self.instance.id

    @property
    def state(self) -> State:
        """Where the instance is."""
        return self.instance.state

    @property
    def phase(self) -> Phase | None:
        """Progress inside the state."""
        return self.instance.phase

    @property
    def is_available(self) -> bool:
        """Whether an activity is there to talk to: Starting, Running or Stopping."""
        return self.state in (State.STARTING, State.RUNNING, State.STOPPING)

    @property
    def is_ready(self) -> bool:
        """Whether it is fit for use: Running and, where there is a readiness probe, that one passes."""
        return self.instance.is_ready

    @property
    def records(self) -> Sequence[Record[State, Event]]:
        """All moves so far; a path of the table."""
        return self.instance.records

    @property
    def error(self) -> BaseException | None:
        """The first error that made the instance leave the path of success, if any."""
        return self.instance.error

    @property
    def provider_id(self) -> NodeId | None:
        """Node id of the present, or last, provider."""
        context = self.instance.context
        return context.provider_id if context else None

    @property
    def provider_name(self) -> str | None:
        """Name of the present, or last, provider."""
        context = self.instance.context
        return context.provider_name if context else None

    def can(self, event: Event) -> bool:
        """Whether the table has a move for an event, in the present state."""
        return self.instance.can(event)

    def open_events(self) -> tuple[Event, ...]:
        """Events that can move the instance, in the present state."""
        return self.instance.open_events()

    async def wait_for(self, *states: State, timeout: float | None = None) -> State:
        """Wait until the instance is in one of some states, and return which.

        Raises `WaitError` once none of them can be reached any more, and at once when a handler waits for its
        own instance; `TimeoutError` after `timeout` seconds.
        """
        return await self.instance.wait_for(*states, timeout=timeout)

    def why(self) -> str:
        """What happened to the instance, who caused it, what comes next and when, in a few lines."""
        return self.instance.why()
