"""The pytest plugin: tests of services in virtual time, on a simulated network.

Opt in with ``-p shem.testing.plugin``, or ``pytest_plugins = ["shem.testing.plugin"]`` in the top
``conftest.py``. ::

    @pytest.mark.sim
    async def test_it_notices_that_its_provider_is_gone(golem, provider):
        provider.plays(MyService)
        async with golem() as g:
            cluster = await g.run_service(MyService)
            await cluster.wait_until(State.RUNNING)
            provider.kill()
            await cluster.wait_until(State.TERMINATED)

Fixtures: `sim`, `golem`, `provider` (see `shem.testing.stage`). The marker ``sim`` runs an ``async def`` test
on a simulated loop of its own, under hypothesis each example; its arguments are those of
`shem.testing.World`, such as ``providers=1``. Nothing else is touched: no other test, loop, or setting.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shem.testing.stage import Golems, Provider, Settings, Sim

_SETTINGS = pytest.StashKey[Settings]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "sim(**world): run this `async def` test in virtual time, on a simulated Golem Network"
    )
    config.stash[_SETTINGS] = Settings()


# The fixtures live as long as the session and keep nothing themselves, so that hypothesis has no reason to
# object to them: what they act on is made anew for each run.


@pytest.fixture(scope="session")
def sim(pytestconfig: pytest.Config) -> Sim:
    """``sim(main)`` runs a coroutine function in virtual time and returns its result."""
    return Sim(pytestconfig.stash[_SETTINGS])


@pytest.fixture(scope="session")
def golem(pytestconfig: pytest.Config) -> Golems:
    """``async with golem() as g`` is a `Golem` on the simulated network."""
    return Golems()


@pytest.fixture(scope="session")
def provider(pytestconfig: pytest.Config) -> Provider:
    """What providers answer (``provider.replies(…)``), and what goes wrong (``provider.vanish()``)."""
    return Provider(pytestconfig.stash[_SETTINGS])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Nothing said in one test holds in the next."""
    settings = item.config.stash[_SETTINGS]
    settings.reset()
    if (marker := item.get_closest_marker("sim")) is not None:
        if marker.args:
            raise pytest.UsageError(f"{item.nodeid}: the marker sim takes keyword arguments only")
        settings.arguments.update(marker.kwargs)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Run the coroutine function of a marked test in a simulation; any other test is none of our business."""
    if pyfuncitem.get_closest_marker("sim") is None:
        return (yield)
    run = Sim(pyfuncitem.config.stash[_SETTINGS])
    function = pyfuncitem.obj
    # Another plugin's kind of test may hold a plain function that it has made of the coroutine function.
    made_over = type(pyfuncitem) is not pytest.Function
    hypothesis = getattr(function, "hypothesis", None)
    with pytest.MonkeyPatch.context() as patch:
        if hypothesis is not None and (inner := _inner(hypothesis.inner_test, made_over)) is not None:
            patch.setattr(hypothesis, "inner_test", _simulated(inner, run))
        elif hypothesis is None and (inner := _inner(function, made_over)) is not None:
            patch.setattr(pyfuncitem, "obj", _simulated(inner, run))
        return (yield)


def _inner(function: Any, made_over: bool) -> Callable[..., Any] | None:
    """The coroutine function that a test is, if it is one."""
    while made_over and not inspect.iscoroutinefunction(function) and hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function if inspect.iscoroutinefunction(function) else None


def _simulated(function: Callable[..., Any], run: Sim) -> Callable[..., None]:
    @functools.wraps(function)
    def simulated(*args: Any, **kwargs: Any) -> None:
        run(functools.partial(function, *args, **kwargs))

    return simulated
