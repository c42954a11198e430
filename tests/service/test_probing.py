"""Asking the probes of one instance, in virtual time: when they are asked, and what their answers decide."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shem.errors import ActivityGone, Blame, NodeUnavailable, ProbeFailed
from shem.events import Phase, PhaseChanged
from shem.lifecycle import Actor, Cause, Event, State
from shem.service.probe import Probe
from shem.service.probing import ASKED_IN, Prober
from shem.service.service import Service
from shem.testing.sim import run


class Quick(Service):
    """Starts at once, runs until it is stopped, and shuts down at once."""

    async def start(self):
        for _nothing in ():
            yield _nothing

    async def shutdown(self):
        for _nothing in ():
            yield _nothing


@dataclass
class Answers:
    """A check that gives the answers it was told to, and the last one for ever; notes down when it was asked.

    An answer is a bool, an exception to raise, or a number of seconds to take before a yes.
    """

    answers: Sequence[Any]
    asked_at: list[float] = field(default_factory=list)

    async def __call__(self, _service: object) -> bool:
        self.asked_at.append(asyncio.get_running_loop().time())
        answer = self.answers[min(len(self.asked_at), len(self.answers)) - 1]
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, bool):
            return answer
        await asyncio.sleep(answer)
        return True


@contextlib.asynccontextmanager
async def attended(one: Any, *probes: Probe) -> AsyncIterator[Prober]:
    """Its probes are asked in whatever state it is, as a slot sees to it; at the end it is stopped."""
    prober = Prober(one.instance, probes, reach=None, clock=one.clock)

    async def attend() -> None:
        while one.state is not State.TERMINATED:
            seq = len(one.instance.records)
            async with prober.at_work():
                await one.instance.moved_since(seq)

    attending = asyncio.get_running_loop().create_task(attend(), name="attend")
    one.provide()
    try:
        yield prober
    finally:
        await one.end()
        await attending
        await prober.close()


def phases(one: Any) -> list[Phase]:
    """The phases of probes that it was seen in."""
    shown = (Phase.PROBING, Phase.READY, Phase.NOT_READY)
    return [event.phase for event in one.heard(PhaseChanged) if event.phase in shown]


def first_run(answers: Sequence[bool], wanted: bool, length: int) -> int | None:
    """After how many answers the first `length` of one kind in a row are complete."""
    row = 0
    for number, answer in enumerate(answers, 1):
        row = row + 1 if answer is wanted else 0
        if row == length:
            return number
    return None


ANSWERS = st.lists(st.booleans(), min_size=1, max_size=12)
THRESHOLD = st.integers(1, 4)
SECONDS = st.floats(0.1, 100)


# --- what decides


@given(ANSWERS, THRESHOLD, SECONDS, st.floats(0, 50))
def test_the_number_of_bad_answers_in_a_row_decides_about_liveness_and_nothing_else_does(
    stage: type[Any], answers: list[bool], failures: int, period: float, delay: float
) -> None:
    check = Answers([*answers, True])

    async def main() -> None:
        one = stage(Quick)
        async with attended(
            one, Probe(check, period=period, failures=failures, initial_delay=delay, timeout=0.05)
        ):
            await asyncio.sleep(delay + period * (len(answers) + 0.5))
            decided = first_run(answers, False, failures)
            assert check.asked_at == pytest.approx(
                [delay + period * number for number in range(decided or len(answers) + 1)]
            )
            if decided is None:
                assert one.state is State.RUNNING
                return
            moves = [record for record in one.instance.records if record.event is Event.SERVICE_ERROR]
            (failed,) = moves
            assert failed.source is State.RUNNING and failed.cause.actor is Actor.PROBE
            assert failed.monotonic == check.asked_at[-1]
            assert isinstance(failed.cause.error, ProbeFailed)
            times = "once" if failures == 1 else f"{failures} times in a row"
            assert str(failed.cause) == (
                "probe: the liveness probe failed (ProbeFailed: its check went wrong "
                f"{times}, at last because the check said no)"
            )

    run(main)


@given(ANSWERS, THRESHOLD, THRESHOLD, SECONDS)
def test_a_start_succeeds_or_fails_as_soon_as_enough_answers_in_a_row_say_so(
    stage: type[Any], answers: list[bool], successes: int, failures: int, period: float
) -> None:
    check = Answers(answers)

    async def main() -> None:
        one = stage(Quick)
        probe = Probe(check, kind="startup", period=period, failures=failures, successes=successes)
        async with attended(one, probe):
            await asyncio.sleep(period * (len(answers) + max(successes, failures)))
            # The last answer is given for ever, so one of the two is sure to come.
            given = answers + answers[-1:] * max(successes, failures)
            good, bad = first_run(given, True, successes), first_run(given, False, failures)
            passed = good is not None and (bad is None or good < bad)
            number = good if passed else bad
            assert number is not None
            move = one.instance.records[1]
            assert move.event is (Event.START_SUCCESSFUL if passed else Event.START_FAILED)
            assert move.monotonic == pytest.approx(period * (number - 1))
            assert len(check.asked_at) == number, "and then it is not asked any more"
            assert phases(one) == [Phase.PROBING]

    run(main)


@given(ANSWERS, THRESHOLD, THRESHOLD)
def test_readiness_changes_with_enough_answers_in_a_row_and_moves_nothing(
    stage: type[Any], answers: list[bool], successes: int, failures: int
) -> None:
    async def main() -> None:
        one = stage(Quick)
        probe = Probe(
            Answers(answers), kind="readiness", period=1, failures=failures, successes=successes, timeout=0.5
        )
        async with attended(one, probe):
            ready, shown = False, [Phase.NOT_READY]
            for number in range(1, len(answers) + 1):
                await asyncio.sleep(0.5)
                if all(answers[max(0, number - successes) : number]) and number >= successes:
                    ready = True
                elif not any(answers[max(0, number - failures) : number]) and number >= failures:
                    ready = False
                assert one.service.is_ready is ready, answers[:number]
                now = Phase.READY if ready else Phase.NOT_READY
                shown += [now] if shown[-1] is not now else []
                assert one.state is State.RUNNING and one.service.phase is now
                await asyncio.sleep(0.5)
            assert phases(one)[: len(shown)] == shown

    run(main)


# --- when they are asked


class Clumsy:
    """A check that takes its time, may refuse to be cancelled, and knows whether it was asked out of turn."""

    def __init__(self, one: Any, kind: str, courses: Sequence[tuple[float, float, bool]]) -> None:
        self._one, self._kind, self._courses = one, kind, courses
        self._under_way = 0
        self.asked = 0
        self.faults: list[str] = []

    async def __call__(self, _service: object) -> bool:
        seconds, stubborn, answer = self._courses[self.asked % len(self._courses)]
        self.asked += 1
        if self._under_way:
            self.faults.append("two at once")
        if self._kind not in ASKED_IN.get(self._one.state, ()):
            self.faults.append(f"asked while {self._one.state.value}")
        if self._kind == "startup" and not self._one.instance.start_is_exhausted:
            self.faults.append("asked before start() was exhausted")
        self._under_way += 1
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(stubborn)
            raise
        finally:
            self._under_way -= 1
        return answer


COURSES = st.lists(
    st.tuples(st.sampled_from([0, 0.5, 3, 40]), st.sampled_from([0, 0, 0.5, 7]), st.booleans()),
    min_size=1,
    max_size=4,
)
KINDS = st.sampled_from(["startup", "readiness", "liveness"])
WHAT_HAPPENS = st.lists(
    st.tuples(st.floats(0, 20), st.sampled_from(["silence", "recover", "stop", "lose"])), max_size=8
)


@given(st.lists(st.tuples(KINDS, COURSES), min_size=1, max_size=4), WHAT_HAPPENS)
def test_no_check_is_asked_outside_its_state_and_never_two_of_one_probe_at_once(
    stage: type[Any],
    drawn: list[tuple[Any, list[tuple[float, float, bool]]]],
    happening: list[tuple[float, str]],
) -> None:
    async def main() -> None:
        one = stage(Quick)
        checks = [Clumsy(one, kind, courses) for kind, courses in drawn]
        probes = [
            Probe(check, kind=kind, period=2, timeout=1.5, failures=2)
            for check, (kind, _courses) in zip(checks, drawn, strict=True)
        ]
        async with attended(one, *probes):
            for pause, what in happening:
                await asyncio.sleep(pause)
                getattr(one, what)()
            await asyncio.sleep(10)
        await asyncio.sleep(10)
        assert [fault for check in checks for fault in check.faults] == []

    run(main)


@pytest.mark.parametrize("steps", range(12))
def test_a_move_in_the_very_moment_a_check_is_due_keeps_it_from_being_asked(
    stage: type[Any], steps: int
) -> None:
    asked_in: list[State] = []

    async def main() -> None:
        one, loop = stage(Quick), asyncio.get_running_loop()

        def stop_after(more: int) -> None:
            if more:
                loop.call_soon(stop_after, more - 1)
            else:
                one.silence()

        async with attended(one, Probe(lambda service: asked_in.append(service.state), initial_delay=5)):
            loop.call_at(5.0, stop_after, steps)
            await asyncio.sleep(6)
        assert set(asked_in) <= {State.RUNNING}

    run(main)


@pytest.mark.parametrize("steps", range(20))
def test_a_stop_in_the_very_moment_of_running_leaves_no_readiness_behind(
    stage: type[Any], steps: int
) -> None:
    class Slow(Quick):
        async def shutdown(self):
            script = self._ctx.new_script()
            script.run("sleep", "3")
            yield script

    async def main() -> None:
        one = stage(Slow)
        loop = asyncio.get_running_loop()

        def stop_after(more: int) -> None:
            if more:
                loop.call_soon(stop_after, more - 1)
            else:
                one.stop()

        loop.call_soon(stop_after, steps)
        async with attended(one, Probe(Answers([True]), kind="readiness")):
            await asyncio.sleep(1)
            assert one.state is State.STOPPING and one.service.phase is Phase.SCRIPT
            assert not one.service.is_ready

    run(main)


@pytest.mark.parametrize(
    ("kind", "state"),
    [("startup", State.STARTING), ("readiness", State.RUNNING), ("liveness", State.RUNNING)],
)
def test_a_probe_pauses_while_the_provider_is_unresponsive_and_goes_on_counting_where_it_was(
    stage: type[Any], kind: Any, state: State
) -> None:
    check = Answers([False])

    async def main() -> None:
        one = stage(Quick)
        async with attended(one, Probe(check, kind=kind, period=10, failures=3)):
            await asyncio.sleep(15)
            assert one.state is state and check.asked_at == [0, 10]
            one.silence()
            await asyncio.sleep(1000)
            assert one.state is State.UNRESPONSIVE and check.asked_at == [0, 10]
            assert not one.service.is_ready
            one.recover()
            await asyncio.sleep(1)
            assert check.asked_at == [0, 10, 1015]
            if kind != "readiness":
                assert one.instance.records[-2].source is state or one.instance.records[-1].source is state
                assert isinstance(one.instance.error, ProbeFailed), "two bad answers before, and one after"

    run(main)


def test_after_a_silence_readiness_has_to_be_shown_anew_and_is_asked_at_once(stage: type[Any]) -> None:
    check = Answers([True])

    async def main() -> None:
        one = stage(Quick)
        async with attended(one, Probe(check, kind="readiness", period=60, initial_delay=5)):
            await asyncio.sleep(6)
            assert one.service.is_ready
            one.silence()
            assert not one.service.is_ready and one.service.phase is None
            await asyncio.sleep(10)
            check.answers = [0.5]
            one.recover()
            assert not one.service.is_ready
            await asyncio.sleep(0.25)
            assert not one.service.is_ready and one.service.phase is Phase.NOT_READY
            await asyncio.sleep(0.5)
            assert one.service.is_ready and check.asked_at == [5, 16]

    run(main)


@given(KINDS, st.sampled_from(["silence", "stop", "lose"]), st.booleans(), st.integers(0, 2**32))
def test_an_answer_that_comes_in_the_moment_of_a_move_is_void_in_whatever_order_tasks_run(
    stage: type[Any], kind: Any, what: str, first: bool, seed: int
) -> None:
    """The answer is ready when the check's second is over, and so is what ends the state."""

    async def late_no(_service: object) -> bool:
        await asyncio.sleep(1)
        return False

    async def main() -> None:
        one, loop = stage(Quick), asyncio.get_running_loop()
        if first:
            loop.call_at(1.0, getattr(one, what))
        async with attended(one, Probe(late_no, kind=kind, failures=1)) as prober:
            await asyncio.sleep(0.5)
            before = len(one.instance.records)
            if not first:
                loop.call_at(1.0, getattr(one, what))
            await asyncio.sleep(0.75)
            assert one.instance.error is None or len(one.instance.records) > before
            if first:
                (watch,) = prober._watches
                assert one.instance.error is None and (watch.good, watch.bad) == (0, 0)

    run(main, random.Random(seed).randrange)


@pytest.mark.parametrize("kind", ["startup", "liveness"])
def test_a_bad_answer_is_void_where_asking_the_provider_shows_that_it_is_silent(
    stage: type[Any], kind: Any
) -> None:
    async def main() -> None:
        one = stage(Quick)

        async def observe() -> None:
            one.silence()

        answering, one.lease.activity.observe = one.lease.activity.observe, observe
        async with attended(one, Probe(Answers([False, True]), kind=kind, failures=1)) as prober:
            await asyncio.sleep(5)
            assert one.state is State.UNRESPONSIVE and one.instance.error is None
            (watch,) = prober._watches
            assert (watch.good, watch.bad) == (0, 0)
            one.lease.activity.observe = answering
            one.recover()
            await one.until(State.RUNNING)

    run(main)


def test_a_check_that_is_under_way_when_its_state_is_left_is_cancelled_and_its_answer_void(
    stage: type[Any],
) -> None:
    cancelled: list[float] = []

    async def check(_service: object) -> bool:
        try:
            await asyncio.sleep(3)
        except asyncio.CancelledError:
            cancelled.append(asyncio.get_running_loop().time())
            raise
        return False

    async def main() -> None:
        one = stage(Quick)
        async with attended(one, Probe(check, failures=1)):
            await asyncio.sleep(1)
            one.silence()
            await asyncio.sleep(1)
            one.recover()
            await asyncio.sleep(1)
            assert cancelled == [1] and one.state is State.RUNNING

    run(main)


def test_a_new_activity_is_probed_from_the_beginning(stage: type[Any]) -> None:
    check = Answers([False])

    async def main() -> None:
        one = stage(Quick, retries=1)
        async with attended(one, Probe(check, kind="startup", period=1, failures=3, initial_delay=5)):
            await one.until(State.PENDING)
            assert check.asked_at == [5, 6, 7]
            one.instance.give_up_lease()
            one.policy.retries = 0
            one.provide()
            assert not one.instance.start_is_exhausted
            await one.until(State.TERMINATED)
            assert check.asked_at == [5, 6, 7, 12, 13, 14]

    run(main)


# --- the gate of the start


def test_start_successful_is_held_back_until_the_startup_probe_passes(stage: type[Any]) -> None:
    class Slow(Quick):
        async def start(self):
            script = self._ctx.new_script()
            script.run("sleep", "30")
            yield script

    async def main() -> None:
        one = stage(Slow)
        check = Answers([False, False, True])
        async with attended(one, Probe(check, kind="startup", period=10, initial_delay=5)):
            await asyncio.sleep(31)
            assert one.state is State.STARTING and one.service.phase is Phase.PROBING
            assert check.asked_at == []
            await one.until(State.RUNNING)
            assert check.asked_at == [35, 45, 55]
            assert one.last.cause == Cause(
                Actor.HANDLER, "start() is exhausted, and the startup probe has passed"
            )

    run(main)


def test_all_of_several_startup_probes_must_pass_and_one_that_has_passed_is_not_asked_again(
    stage: type[Any],
) -> None:
    quick, slow = Answers([True]), Answers([False, False, True])

    async def main() -> None:
        one = stage(Quick)
        async with attended(one, *(Probe(check, kind="startup", period=1) for check in (quick, slow))):
            await one.until(State.RUNNING)
            assert quick.asked_at == [0] and slow.asked_at == [0, 1, 2]

    run(main)


def test_one_of_several_startup_probes_that_fails_is_enough(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Quick)
        probes = [
            Probe(Answers([True]), kind="startup"),
            Probe(Answers([False]), kind="startup", period=1, failures=2),
        ]
        async with attended(one, *probes):
            await one.until(State.TERMINATED)
            assert one.last.event is Event.START_FAILED and one.last.monotonic == 1

    run(main)


def test_all_of_several_readiness_probes_must_pass(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Quick)
        first, second = Answers([True, True, False]), Answers([False, True])
        probes = [Probe(check, kind="readiness", period=1, failures=1) for check in (first, second)]
        async with attended(one, *probes):
            seen = []
            for _ in range(3):
                await asyncio.sleep(0.5)
                seen.append(one.service.is_ready)
                await asyncio.sleep(0.5)
            assert seen == [False, True, False]
            details = [event.detail for event in one.heard(PhaseChanged) if event.phase is Phase.NOT_READY]
            assert details == ["not asked yet", "the check said no"]

    run(main)


@pytest.mark.parametrize("what", ["stop", "lose", "silence"])
def test_a_start_that_waits_for_its_probe_can_be_ended_by_everything_else(
    stage: type[Any], what: str
) -> None:
    async def main() -> None:
        one = stage(Quick)
        async with attended(one, Probe(Answers([False]), kind="startup", failures=1000)):
            await asyncio.sleep(5)
            getattr(one, what)()
            expected = {"stop": State.STOPPING, "lose": State.TERMINATED, "silence": State.UNRESPONSIVE}
            assert one.instance.records[1].dest is expected[what]
            await asyncio.sleep(5)
            assert State.RUNNING not in [record.dest for record in one.instance.records]

    run(main)


def test_a_start_that_is_exhausted_while_the_provider_is_silent_is_probed_once_it_recovers(
    stage: type[Any],
) -> None:
    class Slow(Quick):
        async def start(self):
            script = self._ctx.new_script()
            script.run("sleep", "3")
            yield script

    check = Answers([True])

    async def main() -> None:
        one = stage(Slow)
        async with attended(one, Probe(check, kind="startup")):
            await asyncio.sleep(1)
            one.silence()
            await asyncio.sleep(9)
            assert one.state is State.UNRESPONSIVE and check.asked_at == []
            one.recover()
            await one.until(State.RUNNING)
            assert check.asked_at == [10]

    run(main)


def test_without_a_startup_probe_start_successful_is_not_held_back(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Quick)
        async with attended(one, Probe(Answers([True]), kind="readiness")):
            await asyncio.sleep(0)
            await one.until(State.RUNNING)
            assert one.last.monotonic == 0 and not one.instance.start_is_exhausted

    run(main)


def test_without_a_readiness_probe_running_is_ready_and_the_phase_tells_of_the_handler(
    stage: type[Any],
) -> None:
    async def main() -> None:
        one = stage(Quick)
        async with attended(one, Probe(Answers([True]))):
            assert not one.service.is_ready
            await one.until(State.RUNNING)
            await asyncio.sleep(0.1)
            assert one.service.is_ready and one.service.phase is Phase.HANDLER
            one.silence()
            assert not one.service.is_ready

    run(main)


def test_where_there_is_readiness_to_show_the_scripts_of_the_handler_do_not_hide_it(stage: type[Any]) -> None:
    class Busy(Quick):
        async def run(self):
            while True:
                script = self._ctx.new_script()
                script.run("sleep", "1")
                yield script

    async def main() -> None:
        one = stage(Busy)
        async with attended(one, Probe(Answers([False, True]), kind="readiness", period=5)):
            await one.until(State.RUNNING)
            assert not one.service.is_ready, "it has not been asked yet"
            seen = set()
            for _ in range(20):
                await asyncio.sleep(0.25)
                seen.add(one.service.phase)
            assert seen == {Phase.NOT_READY}
            await asyncio.sleep(2.25)
            assert one.service.phase is Phase.READY and one.service.is_ready
            one.stop()
            assert one.service.phase is None and not one.service.is_ready

    run(main)


# --- answers that are none, and what is to blame


@pytest.mark.parametrize(
    ("answer", "because"),
    [
        (60, "there was no answer within 2 s"),
        (LookupError("no pulse"), "LookupError: no pulse"),
        (LookupError(), "LookupError()"),
        (ProbeFailed("odd"), "ProbeFailed: odd"),
        (asyncio.CancelledError(), "it was cancelled"),
    ],
    ids=str,
)
def test_an_exception_or_no_answer_in_time_is_a_bad_answer_and_told_as_it_is(
    stage: type[Any], answer: Any, because: str
) -> None:
    async def main() -> None:
        one = stage(Quick)
        async with attended(one, Probe(Answers([answer]), failures=2, timeout=2, period=5)):
            await one.until(State.STOPPING, State.TERMINATED)
            error = one.instance.error
            assert isinstance(error, ProbeFailed)
            assert str(error) == f"its check went wrong 2 times in a row, at last because {because}"
            raised = isinstance(answer, Exception)
            assert error.__cause__ is (answer if raised else None)

    run(main)


@pytest.mark.parametrize(
    ("raised", "blame"),
    [
        (ConnectionRefusedError(), Blame.PROVIDER),
        (KeyError("not there yet"), Blame.PROVIDER),
        (AssertionError(), Blame.PROVIDER),
        (AttributeError("no such thing"), Blame.USER),
        (NameError("no such name"), Blame.USER),
        (TypeError("takes 0 arguments"), Blame.USER),
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", ["startup", "liveness"])
def test_the_provider_is_to_blame_unless_the_check_is_broken(
    stage: type[Any], kind: Any, raised: Exception, blame: Blame
) -> None:
    async def main() -> None:
        one = stage(Quick)
        async with attended(one, Probe(Answers([raised]), kind=kind, failures=1)):
            await asyncio.sleep(1)
            assert one.instance.error.blame is blame
            if kind == "startup":
                assert one.policy.asked == [one.instance.error], "policy is asked about this very error"

    run(main)


def test_a_check_that_will_not_end_is_left_behind_and_counts_as_bad_until_it_does(stage: type[Any]) -> None:
    let_go = 0.0
    asked: list[float] = []

    async def stuck(_service: object) -> None:
        loop = asyncio.get_running_loop()
        asked.append(loop.time())
        while loop.time() < let_go:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(let_go - loop.time())

    async def main() -> None:
        nonlocal let_go
        one, let_go = stage(Quick), 35.0
        async with attended(one, Probe(stuck, period=10, timeout=2, failures=4, kind="readiness")):
            await asyncio.sleep(34)
            assert asked == [0]
            await asyncio.sleep(10)
            assert asked == [0, 40] and one.service.is_ready
        two, let_go = stage(Quick), 95.0
        asked.clear()
        async with attended(two, Probe(stuck, period=10, timeout=2, failures=3)):
            await two.until(State.TERMINATED)
            assert [record.monotonic - asked[0] for record in two.instance.records][2] == 20
            assert "the check before it has still not ended" in str(two.instance.error)
        await asyncio.sleep(60)

    run(main)


def test_the_end_of_a_check_that_was_left_behind_makes_no_noise(stage: type[Any]) -> None:
    async def rude(_service: object) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(9)
            raise ValueError("too late to matter") from None

    async def main() -> None:
        one = stage(Quick)
        with structlog.testing.capture_logs() as logged:
            async with attended(one, Probe(rude, timeout=1)):
                await asyncio.sleep(2)
            await asyncio.sleep(20)
        assert logged == []

    run(main)


def unavailable() -> NodeUnavailable:
    return NodeUnavailable("GET /activity", None, "cut off")


@pytest.mark.parametrize("kind", ["startup", "liveness"])
@pytest.mark.parametrize("silence", ["error", "hangs"])
def test_a_bad_answer_says_nothing_of_the_service_while_its_provider_does_not_answer_either(
    stage: type[Any], kind: Any, silence: str
) -> None:
    check = Answers([False])

    async def main() -> None:
        one = stage(Quick)

        async def observe() -> None:
            if silence == "hangs":
                await asyncio.sleep(1000)
            raise unavailable()

        answering, one.lease.activity.observe = one.lease.activity.observe, observe
        async with attended(one, Probe(check, kind=kind, period=10, failures=2)):
            await asyncio.sleep(99)
            assert len(check.asked_at) == 10
            assert one.state is (State.STARTING if kind == "startup" else State.RUNNING)
            one.lease.activity.observe = answering
            await asyncio.sleep(12)
            assert isinstance(one.instance.error, ProbeFailed)
            assert [r.monotonic for r in one.instance.records if r.cause.error is not None] == [110]

    run(main)


def test_readiness_ends_with_the_provider_s_answers(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Quick)

        async def observe() -> None:
            raise unavailable()

        one.lease.activity.observe = observe
        check = Answers([True, False])
        async with attended(one, Probe(check, kind="readiness", period=1, failures=1)):
            await asyncio.sleep(0.5)
            assert one.service.is_ready
            await asyncio.sleep(1)
            assert not one.service.is_ready

    run(main)


# --- commands


def test_a_command_runs_beside_the_handler_s_script_on_the_provider(stage: type[Any]) -> None:
    class Busy(Quick):
        async def run(self):
            script = self._ctx.new_script()
            script.run("sleep", "100")
            yield script

    async def main() -> None:
        one = stage(Busy)
        async with attended(one, Probe(command=["say", "hello"], period=10)):
            await asyncio.sleep(35)
            assert one.lease.ran == ["run say hello"] * 4 and one.state is State.RUNNING
            assert len(one.lease.running) == 1

    run(main)


def test_a_command_that_fails_is_told_with_its_exit_code(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Quick)
        async with attended(one, Probe(command=["fail", "7"], period=1, failures=2)):
            await one.until(State.STOPPING)
            assert "command 0 (run fail 7) failed with exit code 7" in str(one.instance.error)
            assert one.instance.error.blame is Blame.PROVIDER

    run(main)


@pytest.mark.parametrize("kind", ["startup", "liveness"])
def test_a_command_that_finds_the_activity_gone_leaves_that_to_those_who_know(
    stage: type[Any], kind: Any
) -> None:
    async def main() -> None:
        one = stage(Quick)
        async with attended(one, Probe(command=["vanish"], kind=kind, failures=1)):
            await asyncio.sleep(3)
            assert Event.SERVICE_ERROR not in one.events and Event.START_FAILED not in one.events
            one.instance.notice_loss()
            assert one.last.event is Event.ACTIVITY_LOST

    run(main)


def test_addresses_need_a_way_to_reach_them(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Quick)
        async with attended(one, Probe(tcp=("localhost", 80), failures=1)):
            await asyncio.sleep(1)
            assert one.instance.error.blame is Blame.USER
            assert "nothing was given to reach services over the network with" in str(one.instance.error)

    run(main)


def test_a_command_without_an_activity_has_nowhere_to_run(stage: type[Any]) -> None:
    async def main() -> None:
        one = stage(Quick)
        prober = Prober(one.instance, [Probe(command=["say"])], reach=None, clock=one.clock)
        with pytest.raises(ActivityGone, match="instance i1 has no activity"):
            await Probe(command=["say"]).ask(one.service, prober._means)
        await one.end()

    run(main)


def test_a_bug_of_ours_is_logged_and_leaves_the_instance_alone(
    stage: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_anything: object) -> Callable[..., None]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Prober, "_tell", broken)

    async def main() -> None:
        one = stage(Quick)
        with structlog.testing.capture_logs() as logged:
            async with attended(one, Probe(Answers([True]))):
                await asyncio.sleep(30)
                assert one.state is State.RUNNING
        assert [entry["event"] for entry in logged] == ["probes_ended_by_a_bug"]

    run(main)
