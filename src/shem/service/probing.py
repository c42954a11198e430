"""Asking the probes of one instance, and telling it what follows from their answers.

Probes run in tasks beside the state machine, each only in the state of its kind: a startup probe while
Starting, once `start()` is exhausted; the others while Running. A check that is under way when the state is
left is cancelled, and its answer is void. While Unresponsive nothing is asked; afterwards counting goes on
where it was, but for readiness, which has to be shown anew. Two checks of one probe never overlap, and each
is bounded: one that will not end is left behind, and until it does end every further one is a bad answer.

A bad answer of a startup or liveness probe counts only if the provider itself answers. One that is silent is
the business of `shem.engine.liveness` and makes the instance Unresponsive, from where its service may
recover; to take it for a sick service would end that service for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from shem.clock import Clock
from shem.errors import ActivityGone, Blame, ConfigError, NodeError, ProbeFailed, ScriptMisuse
from shem.events import Phase
from shem.lifecycle import Actor, Cause, Event, State
from shem.log import get_logger
from shem.script import Script
from shem.service.driver import cut_short
from shem.service.instance import Instance
from shem.service.probe import Kind, Probe, Reach

_log = get_logger("probes")

#: Which kinds are asked in which state.
ASKED_IN: Final[dict[State, tuple[Kind, ...]]] = {
    State.STARTING: ("startup",),
    State.RUNNING: ("readiness", "liveness"),
}

#: What only a broken check raises, on whatever provider.
_BUGS: Final = (
    AttributeError,
    ConfigError,
    ImportError,
    NameError,
    NotImplementedError,
    ScriptMisuse,
    SyntaxError,
    TypeError,
)


class Prober:
    """The probes of one instance.

    Args:
        reach: how the service is reached over the network; needed for tcp and http only.
    """

    def __init__(
        self, instance: Instance, probes: Sequence[Probe], *, reach: Reach | None, clock: Clock
    ) -> None:
        self._instance, self._clock = instance, clock
        self._means = _Means(instance, reach)
        self._watches = [_Watch(probe) for probe in probes]
        kinds = {probe.kind for probe in probes}
        instance.start_is_probed = "startup" in kinds
        instance.readiness_is_probed = "readiness" in kinds
        self._stay: tuple[int, State] | None = None

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Ask, for as long as the body runs, what the present state is to be asked."""
        state = self._instance.state
        watches = [watch for watch in self._watches if watch.probe.kind in ASKED_IN.get(state, ())]
        if not watches:
            yield
            return
        asking = asyncio.get_running_loop().create_task(
            self._ask_all(watches, state), name=f"probes of {self._instance.id}"
        )
        asking.add_done_callback(_report_bug)
        try:
            yield
        finally:
            asking.cancel()
            await asyncio.wait([asking])

    async def close(self) -> None:
        """Give checks that did not end when they were cancelled a moment more."""
        await cut_short([watch.check for watch in self._watches if watch.check is not None])

    # --- asking

    async def _ask_all(self, watches: Sequence[_Watch], state: State) -> None:
        instance = self._instance
        if state is State.STARTING:
            await instance.start_exhausted()
        if instance.state is not state:
            return
        self._begin(watches, state)
        tasks = [
            asyncio.get_running_loop().create_task(
                self._keep_asking(watch, state), name=f"{watch.probe.kind} probe of {instance.id}"
            )
            for watch in watches
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _begin(self, watches: Sequence[_Watch], state: State) -> None:
        now, stay = self._clock.monotonic(), (self._instance.starts, state)
        recovered, self._stay = stay == self._stay, stay
        for watch in watches:
            if not recovered:
                watch.begin(now + watch.probe.initial_delay)
            elif watch.probe.kind == "readiness":
                watch.begin(now)
        if state is State.STARTING:
            self._instance.set_phase(Phase.PROBING)
        elif self._instance.readiness_is_probed:
            self._instance.set_ready(False, "not asked yet")

    async def _keep_asking(self, watch: _Watch, state: State) -> None:
        instance, probe = self._instance, watch.probe
        while instance.state is state and not self._is_decided(watch):
            if (pause := watch.due - self._clock.monotonic()) > 0:
                await asyncio.sleep(pause)
                continue
            watch.due = self._clock.monotonic() + probe.period
            answer = await watch.ask(self._check(probe, state))
            if answer.wrong and probe.kind != "readiness" and not await self._provider_answers(probe):
                continue
            if instance.state is state:
                watch.count(answer)
                self._tell(watch)

    async def _check(self, probe: Probe, state: State) -> str | None:
        # By the time of its first step the instance may have moved already; the answer is void then.
        if self._instance.state is not state:
            return None
        return await probe.ask(self._instance.service, self._means)

    def _is_decided(self, watch: _Watch) -> bool:
        """Whether there is nothing more to ask. (What liveness decides is told to the instance at once.)"""
        return watch.probe.kind == "startup" and watch.passes

    async def _provider_answers(self, probe: Probe) -> bool:
        """Whether the provider is there, so that a bad answer is the service's own."""
        lease = self._instance.lease
        if lease is None or lease.loss is not None:
            return False
        try:
            async with asyncio.timeout(probe.timeout):
                await lease.activity.observe()
        except (NodeError, TimeoutError):
            return False
        return True

    # --- what follows

    def _tell(self, watch: _Watch) -> None:
        """Tell the instance what the answers so far mean."""
        instance = self._instance
        of_kind = [one for one in self._watches if one.probe.kind == watch.probe.kind]
        match watch.probe.kind:
            case "startup" if watch.fails:
                instance.start_failed("the startup probe failed", watch.error())
            case "startup" if all(one.passes for one in of_kind):
                instance.start_passed()
            case "liveness" if watch.fails:
                instance.fire(
                    Event.SERVICE_ERROR, Cause(Actor.PROBE, "the liveness probe failed", watch.error())
                )
            case "readiness":
                unready = [one for one in of_kind if not one.ready]
                instance.set_ready(not unready, unready[0].answer.wrong if unready else "")


@dataclass(frozen=True, slots=True)
class _Means:
    """How probes get at one service."""

    instance: Instance
    given: Reach | None

    @property
    def reach(self) -> Reach:
        """How it is reached over the network."""
        if self.given is None:
            raise ConfigError("Probe: nothing was given to reach services over the network with")
        return self.given

    async def execute(self, script: Script) -> None:
        """Run a script on its provider, beside those of its handlers."""
        lease = self.instance.lease
        if lease is None:
            raise ActivityGone(f"{script!r} has nowhere to run: {self.instance.subject} has no activity")
        await lease.execute(script, lambda _phase: None)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a check said: what is wrong (empty where nothing is), and the exception that told so, if any."""

    wrong: str = ""
    raised: BaseException | None = None


class _Watch:
    """One probe of one instance, and its answers.

    Attributes:
        due: when it is asked next, by the monotonic clock.
        good, bad: how many good, or bad, answers in a row there were at last.
        ready: what a readiness probe has decided.
        answer: the last one that counted.
        check: the check under way, or one that would not end.
    """

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.check: asyncio.Task[Any] | None = None
        self.begin(0.0)

    def begin(self, due: float) -> None:
        """Forget all answers."""
        self.due, self.good, self.bad, self.ready = due, 0, 0, False
        self.answer = _Answer("it has not been asked yet")

    @property
    def passes(self) -> bool:
        """Whether enough good answers came in a row."""
        return self.good >= self.probe.successes

    @property
    def fails(self) -> bool:
        """Whether enough bad answers came in a row."""
        return self.bad >= self.probe.failures

    def count(self, answer: _Answer) -> None:
        """An answer counts."""
        self.answer = answer
        self.good, self.bad = (0, self.bad + 1) if answer.wrong else (self.good + 1, 0)
        self.ready = self.passes or (self.ready and not self.fails)

    def error(self) -> ProbeFailed:
        """Why it fails."""
        times = "once" if self.bad == 1 else f"{self.bad} times in a row"
        error = ProbeFailed(f"its check went wrong {times}, at last because {self.answer.wrong}")
        error.__cause__ = self.answer.raised
        if isinstance(self.answer.raised, _BUGS):
            error.blame = Blame.USER
        return error

    async def ask(self, asking: Coroutine[Any, Any, str | None]) -> _Answer:
        """Ask once. Takes little longer than the probe's timeout, whatever the check does."""
        if self.check is not None:
            asking.close()
            return _Answer("the check before it has still not ended")
        check = self.check = asyncio.get_running_loop().create_task(asking, name=f"{self.probe.kind} check")
        check.add_done_callback(self._forget)
        try:
            await asyncio.wait([check], timeout=self.probe.timeout)
            if not check.done():
                await cut_short([check])
                return _Answer(f"there was no answer within {self.probe.timeout:g} s")
        finally:
            check.cancel()
        if check.cancelled():
            return _Answer("it was cancelled")
        if (raised := check.exception()) is not None:
            return _Answer(f"{type(raised).__name__}: {raised}" if str(raised) else repr(raised), raised)
        return _Answer(check.result() or "")

    def _forget(self, check: asyncio.Task[Any]) -> None:
        self.check = None
        if not check.cancelled():
            # Retrieved, so that the end of one that was left behind makes no noise.
            check.exception()


def _report_bug(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("probes_ended_by_a_bug", task=task.get_name(), error=repr(error))
