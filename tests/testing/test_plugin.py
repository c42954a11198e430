"""The pytest plugin: marked tests run in virtual time, with a simulated network; nothing else is touched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
HEAD = """
import asyncio
import pytest
from hypothesis import given, settings, strategies as st
from shem import Service, State, vm
from shem.testing.sim import SimLoop

class Demo(Service):
    @staticmethod
    async def get_payload():
        return await vm.repo(image_hash="0" * 56)

    async def run(self):
        while True:
            await asyncio.sleep(3600)
            script = self._ctx.new_script()
            result = script.run("/bin/look", "around")
            yield script
            self.seen = (await result).stdout

    @staticmethod
    def fake_provider(program, args):
        return "from the hook"

def in_virtual_time():
    return isinstance(asyncio.get_running_loop(), SimLoop)
"""


def run(pytester: pytest.Pytester, body: str, *options: str) -> pytest.RunResult:
    """Run a test file in a process of its own, which has not imported the plugin before it is asked to."""
    pytester.makepyfile(HEAD + body)
    plugins = ("-p", "shem.testing.plugin", "-p", "no:cacheprovider", "-p", "no:randomly")
    return pytester.runpytest_subprocess("-q", "-W", "error", "--strict-markers", *plugins, *options)


def test_marked_tests_live_in_virtual_time_each_in_a_loop_of_its_own(pytester):
    result = run(
        pytester,
        """
@pytest.mark.sim
async def test_a_year_passes(golem):
    assert in_virtual_time() and asyncio.get_running_loop().time() == 0
    await asyncio.sleep(365 * 24 * 3600)

@pytest.mark.sim
@pytest.mark.parametrize("number", [1, 2])
async def test_with_parameters_and_other_fixtures(number, tmp_path):
    assert in_virtual_time() and tmp_path.exists()

class TestMethods:
    pytestmark = pytest.mark.sim

    async def test_a_method(self):
        assert in_virtual_time() and isinstance(self, TestMethods)

    def test_a_plain_one(self):
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()

seen = []

@pytest.mark.sim(providers=2)
@settings(max_examples=7)
@given(number=st.integers(0, 3))
async def test_every_example_of_hypothesis(number, golem, provider, sim):
    assert asyncio.get_running_loop().time() == 0 and provider.ran == []
    provider.replies("/bin/look", str(number))
    async with golem() as g:
        assert len(golem.world.node.providers) == 2
        cluster = await g.run_service(Demo)
        await cluster.wait_until(State.RUNNING)
        await asyncio.sleep(4000)
        assert cluster.instances[0].seen == str(number)
    seen.append(number)

def test_there_were_examples():
    assert 1 < len(seen) <= 7
""",
    )
    result.assert_outcomes(passed=7)


def test_a_golem_is_on_a_simulated_network_whose_providers_do_as_they_are_told(pytester):
    result = run(
        pytester,
        """
@pytest.fixture
def scripted(provider):
    provider.replies("/bin/look", "from the fixture")

async def run_one(golem, seconds=4000):
    async with golem() as g:
        cluster = await g.run_service(Demo)
        await cluster.wait_until(State.RUNNING)
        await asyncio.sleep(seconds)
        return cluster.instances[0]

@pytest.mark.sim
async def test_what_fixtures_say_holds(golem, provider, scripted):
    assert (await run_one(golem)).seen == "from the fixture"
    assert provider.ran == [("/bin/look", ["around"])]

@pytest.mark.sim
async def test_and_not_in_the_next_test(golem, provider):
    service = await run_one(golem)
    assert service.seen is None and service.state is State.TERMINATED

@pytest.mark.sim
async def test_the_hook_of_a_service_can_be_used(golem, provider):
    provider.plays(Demo)
    assert (await run_one(golem)).seen == "from the hook"
    with pytest.raises(ValueError, match="has no fake_provider"):
        provider.plays(Service)

@pytest.mark.sim
async def test_the_last_reply_counts(golem, provider):
    provider.replies("*", "everything")
    provider.replies("/bin/look a*", "this one", seconds=10)
    assert (await run_one(golem)).seen == "this one"

@pytest.mark.sim
async def test_a_program_can_fail(golem, provider):
    provider.replies("/bin/look", exit_code=3, stderr="nothing to see")
    assert "nothing to see" in (await run_one(golem)).why()

def test_sim_runs_a_function_and_returns_its_result(sim, provider, golem):
    provider.replies("/bin/look", "from outside")

    async def main():
        return await run_one(golem)

    assert sim(main).seen == "from outside"
    assert provider.ran == [("/bin/look", ["around"])]
    with pytest.raises(ValueError, match="sim.main., not sim.main"):
        sim(main())

def test_outside_of_a_simulation_there_is_none(provider, golem):
    with pytest.raises(ValueError, match="needs a simulation"):
        provider.vanish()
    with pytest.raises(ValueError, match="needs a simulation"):
        golem.world

@pytest.mark.sim
async def test_faults_need_a_network(provider):
    with pytest.raises(ValueError, match="no simulated network yet"):
        provider.vanish()
""",
    )
    result.assert_outcomes(passed=8)


def test_faults_come_about_at_the_provider_of_the_instance(pytester):
    result = run(
        pytester,
        """
@pytest.mark.sim
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda provider: provider.kill("out of memory"), "out of memory"),
        (lambda provider: provider.terminate("enough"), "enough"),
        (lambda provider: provider.vanish(), "no sign of life"),
        (lambda provider: provider.hang(), "unresponsive"),
    ],
)
async def test_it_ends(golem, provider, fault, says):
    async with golem() as g:
        cluster = await g.run_service(Demo)
        await cluster.wait_until(State.RUNNING)
        fault(provider)
        await cluster.wait_until(State.TERMINATED)
        assert says in cluster.instances[0].why()

@pytest.mark.sim
@pytest.mark.parametrize("way", ["vanish", "hang", "recover"])
async def test_it_recovers(golem, provider, way):
    async with golem() as g:
        cluster = await g.run_service(Demo)
        await cluster.wait_until(State.RUNNING)
        if way == "recover":
            provider.vanish()
        else:
            getattr(provider, way)(seconds=40)
        await cluster.wait_until(State.UNRESPONSIVE)
        if way == "recover":
            provider.recover()
        await cluster.wait_until(State.RUNNING)

@pytest.mark.sim
async def test_before_there_is_an_agreement(golem, provider):
    async with golem() as g:
        provider.refuse()
        provider.hesitate(5)
        cluster = await g.run_service(Demo)
        await cluster.wait_until(State.RUNNING)
        assert asyncio.get_running_loop().time() > 5
        with pytest.raises(ValueError, match="no agreement yet"):
            provider.terminate(which=7)
        with pytest.raises(ValueError, match="no activity yet"):
            provider.kill(which=7)

@pytest.mark.sim
async def test_bills_can_be_wrong(golem, provider):
    async with golem() as g:
        provider.overcharge(3)
        cluster = await g.run_service(Demo)
        await cluster.wait_until(State.RUNNING)
        await asyncio.sleep(60)
    assert any(type(event).__name__ == "PaymentRefused" for event in golem.world.events)
""",
    )
    result.assert_outcomes(passed=9)


def test_failures_are_failures_and_loose_ends_too(pytester):
    result = run(
        pytester,
        """
@pytest.mark.sim
async def test_fails():
    assert in_virtual_time() is False

@pytest.mark.sim
async def test_leaves_a_task():
    task = asyncio.create_task(asyncio.sleep(1000))

@pytest.mark.sim
async def test_waits_for_ever():
    await asyncio.get_running_loop().create_future()

@pytest.mark.sim
async def test_leaves_a_golem(golem):
    context = golem()
    g = await context.__aenter__()
    await g.run_service(Demo)

@pytest.mark.sim
@given(number=st.integers(0, 1000))
async def test_hypothesis_shrinks(number):
    assert number < 17

@pytest.mark.sim
async def test_a_broken_hook(golem, provider):
    class Broken(Demo):
        @staticmethod
        def fake_provider(program, args):
            return 5
    provider.plays(Broken)
    async with golem() as g:
        cluster = await g.run_service(Demo)
        await cluster.wait_until(State.RUNNING)
        await asyncio.sleep(4000)
""",
    )
    result.assert_outcomes(failed=6)
    result.stdout.fnmatch_lines_random(
        [
            "*task left behind*",
            "*SimDeadlock*",
            "*a Golem has not been stopped*",
            "*number=17*",
            "*gave int 5; return a Reply*",
        ]
    )


def test_other_tests_loops_and_settings_are_left_alone(pytester):
    result = run(
        pytester,
        """
profile = settings.get_current_profile_name()

def test_real_time():
    async def main():
        return in_virtual_time()
    assert asyncio.run(main()) is False

async def test_unmarked():
    pass

@given(number=st.integers(0, 3))
async def test_unmarked_examples(number):
    pass

def test_settings():
    assert settings.get_current_profile_name() == profile
    assert settings.get_profile(profile).max_examples == settings().max_examples
""",
    )
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["*async def functions are not natively supported*"])


def test_another_plugin_may_have_made_a_plain_function_of_a_marked_test(pytester):
    pytester.makeconftest(
        """
import asyncio
import functools
import inspect
import pytest

class Other(pytest.Function):
    def runtest(self):
        function = self.obj

        @functools.wraps(function)
        def plain(*args, **kwargs):
            return asyncio.run(function(*args, **kwargs))

        self.obj = plain
        super().runtest()

def pytest_pycollect_makeitem(collector, name, obj):
    if inspect.iscoroutinefunction(obj) and name.startswith("test_"):
        return Other.from_parent(collector, name=name)
"""
    )
    result = run(
        pytester,
        """
@pytest.mark.sim
async def test_marked():
    assert in_virtual_time()

async def test_unmarked():
    assert not in_virtual_time()
""",
    )
    result.assert_outcomes(passed=2)


def test_the_marker_takes_arguments_of_the_world_by_name_only(pytester):
    result = run(pytester, "@pytest.mark.sim(3)\nasync def test_it():\n    pass\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*takes keyword arguments only*"])


def test_the_example_is_short_and_passes(pytester):
    example = ROOT / "examples" / "test_simple_service.py"
    assert len(example.read_text().splitlines()) < 20
    result = pytester.runpytest_subprocess(
        "-p", "shem.testing.plugin", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", example
    )
    result.assert_outcomes(passed=1)
    assert "simple_service" not in sys.modules
