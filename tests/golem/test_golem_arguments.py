"""Arguments that make no sense are refused by name, before anything is rented."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem import Golem, Probe, Service, State, vm
from shem.config import parse_amount
from shem.errors import BadRequest, ConfigError, ServiceDefinitionError
from shem.payload import VmPayload
from shem.testing import World, play
from shem.testing.sim import EPOCH

PAYLOAD = VmPayload(image_hash="a" * 56)


class Rents(Service):
    def __init__(self, size: int = 1) -> None:
        self.size = size

    @staticmethod
    async def get_payload() -> Any:
        return await vm.repo(image_hash="a" * 56)


class RentsNothing(Service):
    pass


class RentsNonsense(Service):
    async def get_payload(self) -> Any:
        return "an image"


class NeedsSize(Rents):
    def __init__(self, size: int) -> None:
        super().__init__(size)


class NoGenerator(Rents):
    async def run(self) -> None:  # type: ignore[override]  # that is the mistake
        return None


class NoFunction(Rents):
    run = 7  # type: ignore[assignment]  # that is the mistake


# --- Golem(…)


@pytest.mark.parametrize(
    "budget",
    [0, -1, 0.0, -0.5, "0", math.nan, math.inf, "NaN", "Infinity", "a lot", "", None, True, [], "1 GLM"],
)
def test_a_budget_that_is_no_amount_is_refused(budget: Any) -> None:
    with pytest.raises(ConfigError, match="budget"):
        Golem(budget=budget)


@given(st.one_of(st.floats(1e-9, 1e9), st.integers(1, 10**9), st.decimals("0.000000001", "1000000000")))
def test_any_positive_amount_is_a_budget(budget: Any) -> None:
    assert parse_amount(budget, "budget") == Decimal(str(budget))
    assert parse_amount(str(budget), "budget") == Decimal(str(budget))


def test_the_budget_has_to_be_given() -> None:
    with pytest.raises(TypeError, match="budget"):
        Golem()  # type: ignore[call-arg]  # that is the mistake


# --- run_service(…)

ARGUMENTS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (Rents, {"num_instances": 0}, ConfigError, "num_instances must be at least 1, not 0"),
    (Rents, {"num_instances": -1}, ConfigError, "num_instances must be at least 1, not -1"),
    (Rents, {"num_instances": True}, ConfigError, "num_instances must be a whole number, not True"),
    (Rents, {"num_instances": 1.5}, ConfigError, "num_instances must be a whole number, not 1.5"),
    (Rents, {"num_instances": "3"}, ConfigError, "num_instances must be a whole number, not '3'"),
    (Rents, {"instance_params": []}, ConfigError, "instance_params is empty"),
    (Rents, {"num_instances": 2, "instance_params": [{}]}, ConfigError, "1 items for 2 instances"),
    (Rents, {"instance_params": 7}, ConfigError, "instance_params must be mappings"),
    (Rents, {"instance_params": [{}, 7]}, ConfigError, "item 1 is no mapping"),
    (Rents, {"instance_params": [{}, {"weight": 3}]}, ServiceDefinitionError, "cannot be made with"),
    (NeedsSize, {}, ServiceDefinitionError, "cannot be made with"),
    (Rents, {"expiration": EPOCH}, ConfigError, "is in the past"),
    (Rents, {"expiration": EPOCH - timedelta(days=1)}, ConfigError, "is in the past"),
    (Rents, {"expiration": timedelta(0)}, ConfigError, "is in the past"),
    (Rents, {"expiration": -timedelta(hours=1)}, ConfigError, "is in the past"),
    (Rents, {"expiration": datetime(2031, 1, 1)}, ConfigError, "has no time zone"),
    (Rents, {"expiration": timedelta(minutes=5)}, ConfigError, "less than 6 minutes ahead"),
    (Rents, {"expiration": timedelta(seconds=1)}, ConfigError, "less than 6 minutes ahead"),
    (Rents, {"expiration": timedelta.max}, ConfigError, "beyond the end of all calendars"),
    (Rents, {"expiration": 3600}, ConfigError, "expiration must be a datetime or a timedelta, not 3600"),
    (Rents, {"expiration": "tomorrow"}, ConfigError, "expiration must be a datetime or a timedelta"),
    (Rents(), {}, ServiceDefinitionError, "is no subclass of shem.Service"),
    (dict, {}, ServiceDefinitionError, "is no subclass of shem.Service"),
    ("Rents", {}, ServiceDefinitionError, "is no subclass of shem.Service"),
    (None, {}, ServiceDefinitionError, "is no subclass of shem.Service"),
    (NoGenerator, {}, ServiceDefinitionError, r"NoGenerator.run\(\) must be an async generator"),
    (NoFunction, {}, ServiceDefinitionError, r"NoFunction.run\(\) must be an async generator"),
    (RentsNothing, {}, ServiceDefinitionError, r"get_payload\(\) gave None"),
    (RentsNonsense, {}, ServiceDefinitionError, r"get_payload\(\) gave 'an image'"),
    (Rents, {"payload": "an image"}, ConfigError, "payload must be a shem.Payload, not 'an image'"),
    (Rents, {"restart": "always"}, ConfigError, "restart must be a shem.RestartPolicy, not 'always'"),
    (Rents, {"probe": 7}, ConfigError, "probe must be a shem.Probe"),
    (Rents, {"probe": [Probe(print), 7]}, ConfigError, "probe must be a shem.Probe"),
    *(
        (Rents, {name: seconds}, ConfigError, f"{name} must be a number of seconds above 0")
        for name in ("start_timeout", "stop_timeout", "unresponsive_grace")
        for seconds in (0, -1, math.nan, "60", None, True)
    ),
]


@pytest.mark.parametrize(("service_class", "arguments", "error", "words"), ARGUMENTS)
def test_an_argument_that_makes_no_sense_is_refused_and_nothing_is_rented(
    service_class: Any, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            with pytest.raises(error, match=words):
                await golem.run_service(service_class, **arguments)
            assert golem.clusters == []
        assert "subscribe" not in world.calls

    play(story)


def test_what_a_users_own_code_raises_is_passed_on_untouched() -> None:
    class FailsToBeMade(Rents):
        def __init__(self) -> None:
            raise LookupError("in the constructor")

    class FailsToSay(Rents):
        async def get_payload(self) -> Any:  # type: ignore[override]  # an instance method will do
            raise LookupError("in get_payload")

    async def story(world: World) -> None:
        async with world.golem() as golem:
            with pytest.raises(LookupError, match="in the constructor"):
                await golem.run_service(FailsToBeMade)
            with pytest.raises(LookupError, match="in get_payload"):
                await golem.run_service(FailsToSay)
        assert "subscribe" not in world.calls

    play(story)


@pytest.mark.parametrize(
    "expiration",
    [
        None,
        timedelta(minutes=6),
        timedelta(days=50),
        EPOCH + timedelta(hours=1),
        datetime(2031, 5, 1, tzinfo=UTC),
    ],
)
def test_an_expiration_may_be_a_time_or_a_duration(expiration: Any) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(Rents, expiration=expiration)
            expected = (
                EPOCH + timedelta(hours=3)
                if expiration is None
                else EPOCH + expiration
                if isinstance(expiration, timedelta)
                else expiration
            )
            assert cluster.expiration == expected
            await cluster.wait_until(State.RUNNING)

    play(story)


class InstanceMethod(Service):
    def __init__(self, memory: float = 1.0) -> None:
        self.memory = memory

    async def get_payload(self) -> Any:  # type: ignore[override]  # an instance method will do
        return await vm.repo(image_hash="a" * 56, min_mem_gib=self.memory)


class ClassMethod(Service):
    memory = 1.0

    @classmethod
    async def get_payload(cls) -> Any:  # type: ignore[override]  # a class method will do
        return await vm.repo(image_hash="a" * 56, min_mem_gib=cls.memory)


class NotEvenAsync(Service):
    @staticmethod
    def get_payload() -> Any:
        return PAYLOAD


@pytest.mark.parametrize("service_class", [Rents, InstanceMethod, ClassMethod, NotEvenAsync])
def test_a_service_may_say_in_several_ways_what_to_rent(service_class: type[Service]) -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            cluster = await golem.run_service(service_class)
            await cluster.wait_until(State.RUNNING)
            assert isinstance(cluster.payload, VmPayload)

    play(story)


def test_the_first_instance_says_what_all_of_them_rent() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            params = [{"memory": 4.0}, {"memory": 2.0}]
            cluster = await golem.run_service(InstanceMethod, instance_params=params)
            assert cluster.payload.min_mem_gib == 4.0

    play(story)


def test_a_demand_that_the_node_refuses_leaves_no_cluster() -> None:
    async def story(world: World) -> None:
        world.link.fail("subscribe", BadRequest)
        async with world.golem() as golem:
            with pytest.raises(BadRequest):
                await golem.run_service(Rents)
            assert golem.clusters == []

    play(story)


# --- before, after, and twice


def test_a_golem_that_is_not_running_runs_no_service() -> None:
    async def story(world: World) -> None:
        golem = world.golem()
        with pytest.raises(ConfigError, match="this Golem is not running"):
            await golem.run_service(Rents)
        async with golem:
            pass
        with pytest.raises(ConfigError, match="this Golem is not running"):
            await golem.run_service(Rents)
        assert "subscribe" not in world.calls

    play(story)


def test_starting_twice_is_refused_and_harms_nothing() -> None:
    async def story(world: World) -> None:
        async with world.golem() as golem:
            with pytest.raises(ConfigError, match="has been started already"):
                await golem.start()
            await (await golem.run_service(Rents)).wait_until(State.RUNNING)
        assert world.calls.count("create_allocation") == 1

    play(story)


def test_names_of_old_and_environment_decide_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> str:
        async with world.golem(driver="erc20", network="polygon"):
            [allocation] = world.node.allocations.open()
        return allocation.payment_platform

    assert play(story) == "erc20-polygon-glm"

    async def other(world: World) -> str:
        async with world.golem():
            [allocation] = world.node.allocations.open()
        return allocation.payment_platform

    monkeypatch.setenv("YAGNA_PAYMENT_NETWORK", "hoodi")
    assert play(other) == "erc20-hoodi-tglm"


def test_the_subnet_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        async with world.golem(subnet_tag="private") as golem:
            cluster = await golem.run_service(Rents)
            with pytest.raises(TimeoutError):
                await cluster.wait_until(State.RUNNING, timeout=30)
        monkeypatch.setenv("YAGNA_SUBNET", "public")
        async with world.golem() as golem:
            await (await golem.run_service(Rents)).wait_until(State.RUNNING)

    play(story)
