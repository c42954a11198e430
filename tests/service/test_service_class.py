"""The class that users subclass: its defaults, and what its object says when it is no instance yet."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shem.errors import LifecycleError
from shem.lifecycle import Event, State
from shem.script.commands import Deploy
from shem.service.handlers import HANDLERS, check_handlers
from shem.service.service import Service
from shem.testing.sim import run


def test_the_defaults_deploy_and_start_wait_for_ever_and_take_the_runtime_down(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Service)
        one.provide()
        await one.until(State.RUNNING)
        await asyncio.sleep(100_000)
        assert one.state is State.RUNNING and one.lease.ran == ["deploy", "start"]
        await one.end()
        assert one.lease.ran == ["deploy", "start", "terminate"]

    run(main)


def test_the_default_deploy_carries_the_environment_and_options_of_the_class(stage: type[Any]) -> None:
    class Env(Service):
        deploy_env = {"A": "1"}  # noqa: RUF012  # as users write it

    class Options(Service):
        def get_deploy_args(self) -> dict[str, Any]:
            return {**super().get_deploy_args(), "net": ["n"]}

    async def main(service: type[Service]) -> Deploy:
        one = stage(service)
        one.provide()
        await one.until(State.RUNNING)
        (script,) = one.lease.begun
        await one.end()
        return script.commands[0]

    assert run(lambda: main(Env)) == Deploy({"env": {"A": "1"}})
    assert run(lambda: main(Options)) == Deploy({"net": ["n"]})
    assert run(lambda: main(Service)) == Deploy({})


def test_by_default_a_class_says_nothing_about_what_to_rent_and_forgets_nothing() -> None:
    async def main() -> None:
        assert await Service.get_payload() is None
        assert await Service().reset() is None

    run(main)


def test_an_object_that_no_cluster_made_is_no_instance_and_says_how_to_make_one() -> None:
    class Demo(Service):
        pass

    lonely = Demo()
    for ask in (
        lambda: lonely.id,
        lambda: lonely.state,
        lambda: lonely.phase,
        lonely.why,
        lonely.open_events,
    ):
        with pytest.raises(LifecycleError, match=r"this Demo is no instance: .*`golem\.run_service"):
            ask()


def test_the_object_answers_for_its_instance(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Service)
        service = one.service
        assert service.instance is one.instance and service.id == "i1"
        assert service.provider_id is None and service.provider_name is None and service.phase is None
        available = []
        assert not service.is_available
        one.provide()
        for state in (State.STARTING, State.RUNNING):
            await one.until(state)
            available.append(service.is_available)
        one.silence()
        available.append(service.is_available)
        one.recover()
        assert service.can(Event.SHUTDOWN) and not service.can(Event.RUN_SERVICE)
        assert service.open_events() == one.instance.open_events()
        one.stop()
        available.append(service.is_available)
        await one.end()
        available.append(service.is_available)
        assert available == [True, True, False, True, False]
        assert service.records == one.instance.records
        assert service.provider_name == "provider 1", "the last one stays readable"

    run(main)


def test_handlers_of_subclasses_keep_their_names_and_docstrings() -> None:
    class Demo(Service):
        async def run(self):
            """Tell."""
            yield

    assert Demo.run.__name__ == "run" and Demo.run.__doc__ == "Tell."
    assert Service.start.__doc__
    check_handlers(Demo)
    assert [getattr(Demo, name) is getattr(Service, name) for name in HANDLERS] == [True, False, True]
