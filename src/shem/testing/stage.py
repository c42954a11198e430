"""What the pytest fixtures act on: one simulated world for each run of a test, and what is ordered in it.

A run is one simulation: a test, or one example of a hypothesis test. The fixtures outlive it, so they find
the world they mean through the loop that is running (`Stage.present`).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, ClassVar, Final, TypeVar

from shem.devnet.activity import Activity
from shem.devnet.agreements import Agreement
from shem.devnet.settings import Timings
from shem.errors import ConfigError
from shem.golem import Golem
from shem.service.service import Service
from shem.testing import sim
from shem.testing.replies import Replies, ScriptedFetcher, hook_of
from shem.testing.runtime import Reply
from shem.testing.sim import Chooser
from shem.testing.verify import faults_of_records
from shem.testing.world import World

T = TypeVar("T")

#: The pace of a network unless a test says otherwise: an activity may be silent for a minute, and no longer.
TIMINGS: Final = Timings(unresponsive=5.0, abandoned=60.0)


@dataclass(slots=True)
class Stage:
    """One run.

    Attributes:
        replies: what its providers answer.
        arguments: of its `World`.
        disturbed: whether something was made to go wrong in it, so that not all can end well.
    """

    present: ClassVar[dict[asyncio.AbstractEventLoop, Stage]] = {}

    replies: Replies
    arguments: Mapping[str, Any] = field(default_factory=dict)
    disturbed: bool = False
    _world: World | None = None

    @classmethod
    def current(cls) -> Stage | None:
        """That of the loop that is running, if there is one."""
        try:
            return cls.present.get(asyncio.get_running_loop())
        except RuntimeError:
            return None

    async def open(self) -> World:
        """Its world, made when it is first asked for."""
        if self._world is None:
            fetcher = ScriptedFetcher(self.replies.fetched)
            given: dict[str, Any] = {
                "respond": self.replies,
                "unwritten": self.replies.content,
                "fetcher": fetcher,
                "timings": TIMINGS,
            }
            self._world = await World(**{**given, **self.arguments}).__aenter__()
        return self._world

    @property
    def world(self) -> World:
        """Its world. Raises `ConfigError` where nobody has asked for a `Golem` yet."""
        if self._world is None:
            raise ConfigError("there is no simulated network yet: begin with `async with golem() as …`")
        return self._world

    async def play(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await `main()` on this stage, then see to it that all has ended well, and close the world."""
        loop = asyncio.get_running_loop()
        self.present[loop] = self
        try:
            result = await main()
            self._verify()
            return result
        finally:
            del self.present[loop]
            if self._world is not None:
                await self._world.__aexit__()

    def _verify(self) -> None:
        if self.replies.trouble is not None:
            raise self.replies.trouble
        if self._world is None:
            return
        if not self.disturbed:
            self._world.verify()
            return
        # What was left over is for the test to judge; shem's own rules hold all the same.
        services = [
            one for golem in self._world.golems for cluster in golem.clusters for one in cluster.instances
        ]
        if faults := [fault for service in services for fault in faults_of_records(service.records)]:
            raise AssertionError("\n  ".join(faults))


@dataclass(slots=True)
class Settings:
    """What holds for all runs of the test at work: what was said outside of them."""

    replies: Replies = field(default_factory=Replies)
    arguments: dict[str, Any] = field(default_factory=dict)

    def reset(self) -> None:
        """Forget it: another test begins."""
        self.replies = Replies()
        self.arguments.clear()

    def stage(self) -> Stage:
        """A stage for the next run."""
        self.replies.ran = []
        # What the last run ran can still be asked for when it is over.
        replies = Replies(dict(self.replies.table), self.replies.hook, self.replies.ran)
        return Stage(replies, dict(self.arguments))


class Sim:
    """The `sim` fixture: ``sim(main)`` runs a coroutine function in virtual time and returns its result."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, main: Callable[[], Coroutine[Any, Any, T]], choose: Chooser | None = None) -> T:
        """Run `main()` in a simulated loop of its own (see `shem.testing.sim.run`)."""
        given: object = main
        if inspect.iscoroutine(given):
            given.close()
            raise ConfigError("sim() takes the function, not what it returns: sim(main), not sim(main())")
        stage = self._settings.stage()
        return sim.run(lambda: stage.play(main), choose)


class Golems:
    """The `golem` fixture: ``async with golem() as g`` is a `Golem` on the simulated network."""

    @asynccontextmanager
    async def __call__(self, **arguments: Any) -> AsyncIterator[Golem]:
        """A running `Golem`; arguments as for `shem.Golem`, with a budget of 10 GLM by default."""
        stage = _stage("golem()")
        world = await stage.open()
        where = {"subnet_tag": "public", "payment_driver": "erc20", "payment_network": "holesky"}
        async with world.golem(**{**where, **arguments}) as golem:
            yield golem

    @property
    def world(self) -> World:
        """The simulated network: its node, its link, and everything that was told (`events`)."""
        return _stage("golem.world").world


class Provider:
    """The `provider` fixture: what providers answer, and what goes wrong with them.

    Answers that are ordered outside of a simulation hold for the whole test, those inside of one for that
    one. Faults come about at once, at the provider of the latest agreement, or of number `which`, from 0.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    # --- answers

    @property
    def _replies(self) -> Replies:
        stage = Stage.current()
        return self._settings.replies if stage is None else stage.replies

    def replies(
        self,
        pattern: str,
        stdout: str = "",
        *,
        stderr: str = "",
        exit_code: int = 0,
        seconds: float = 0.0,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Programs that match a pattern behave like that from now on; what was said last, counts first.

        The pattern is one of the shell's, for the program or the whole command line. ``download /path`` and
        ``fetch URL`` stand for files that nobody wrote.
        """
        replies = self._replies
        reply = Reply(stdout, stderr, exit_code, seconds, files or {})
        replies.table = {pattern: reply, **{one: r for one, r in replies.table.items() if one != pattern}}

    def plays(self, service_class: type[Service]) -> None:
        """Ask the `fake_provider` of a service for what has no reply. Raises `ConfigError` if it has none."""
        hook = hook_of(service_class)
        if hook is None:
            raise ConfigError(f"{service_class.__name__} has no fake_provider(program, args)")
        self._replies.hook = hook

    @property
    def ran(self) -> list[tuple[str, list[str]]]:
        """Every program that was run so far, with its arguments, in order."""
        return list(self._replies.ran)

    # --- faults

    def vanish(self, seconds: float = 0.0, which: int = -1) -> None:
        """It is cut off: calls to it fail, commands hang; for so many seconds, or else for good."""
        world, name = self._trouble(which)
        world.node.faults.vanish(name)
        if seconds:
            asyncio.get_running_loop().call_later(seconds, world.node.faults.recover, name)

    def recover(self, which: int = -1) -> None:
        """It is connected again, and its activity is heard again."""
        world, name = self._trouble(which)
        world.node.faults.recover(name)
        if (activity := self._activity(world, which)) is not None:
            world.node.faults.resume_activity(activity.id)

    def hang(self, seconds: float = 0.0, which: int = -1) -> None:
        """Its activity falls silent; for so many seconds, or else until the provider gives it up."""
        world, activity = self._need_activity(which)
        world.node.faults.hang_activity(activity.id)
        if seconds:
            asyncio.get_running_loop().call_later(seconds, world.node.faults.resume_activity, activity.id)

    def kill(self, reason: str = "killed by the test", which: int = -1) -> None:
        """Its activity dies abruptly."""
        world, activity = self._need_activity(which)
        world.node.faults.kill_activity(activity.id, reason)

    def terminate(self, reason: str = "ended by the test", which: int = -1) -> None:
        """It ends the agreement."""
        world, _name = self._trouble(which)
        agreement = self._agreement(world, which)
        if agreement is None:
            raise ConfigError("there is no agreement yet that a provider could end")
        world.node.faults.terminate_agreement(agreement.id, reason)

    def refuse(self, times: int = 1, which: int = -1) -> None:
        """It refuses its next agreements. Without an agreement, all providers do."""
        for world, name in self._all_or(which):
            world.node.faults.refuse_next_agreements(name, times)

    def hesitate(self, seconds: float, which: int = -1) -> None:
        """It takes longer to decide about agreements. Without an agreement, all providers do."""
        for world, name in self._all_or(which):
            world.node.faults.hesitate(name, seconds)

    def overcharge(self, factor: float = 2.0, which: int = -1) -> None:
        """It bills more than was used. Without an agreement, all providers do."""
        for world, name in self._all_or(which):
            world.node.faults.pad_bills(name, Decimal(str(factor)))

    # --- whose

    def _trouble(self, which: int) -> tuple[World, str]:
        stage = _stage("a fault")
        stage.disturbed = True
        agreement = self._agreement(stage.world, which)
        if agreement is not None:
            return stage.world, agreement.provider
        providers = stage.world.node.providers
        if not providers:
            raise ConfigError("the simulated network has no provider that anything could go wrong with")
        return stage.world, providers[max(which, 0) % len(providers)].name

    def _all_or(self, which: int) -> list[tuple[World, str]]:
        world, name = self._trouble(which)
        if self._agreement(world, which) is not None:
            return [(world, name)]
        return [(world, provider.name) for provider in world.node.providers]

    def _agreement(self, world: World, which: int) -> Agreement | None:
        agreements = world.node.agreements.all()
        return agreements[which] if -len(agreements) <= which < len(agreements) else None

    def _activity(self, world: World, which: int) -> Activity | None:
        agreement = self._agreement(world, which)
        found = [one for one in world.node.activities.all() if one.agreement is agreement]
        return found[-1] if found else None

    def _need_activity(self, which: int) -> tuple[World, Activity]:
        world, _name = self._trouble(which)
        activity = self._activity(world, which)
        if activity is None:
            raise ConfigError("there is no activity yet: wait for the instance to be Starting")
        return world, activity


def _stage(what: str) -> Stage:
    stage = Stage.current()
    if stage is None:
        raise ConfigError(
            f"{what} needs a simulation: mark the test with @pytest.mark.sim and make it `async def`, "
            f"or call it inside sim(main)"
        )
    return stage
