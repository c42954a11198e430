from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.bus import Bus
from shem.engine.polling import PASSING, Backoff, insist, persist, poll_for_ever
from shem.errors import (
    BadRequest,
    Gone,
    NodeAnswerError,
    NodeError,
    NodeFailure,
    NodeUnavailable,
    NotFound,
    RequestTimeout,
    Unauthorized,
)
from shem.events import BusEvent, NodeBack, NodeLost
from shem.testing import SimClock, run

EVERY_ERROR = [
    NodeUnavailable,
    NodeAnswerError,
    Unauthorized,
    BadRequest,
    NotFound,
    Gone,
    RequestTimeout,
    NodeFailure,
]


class Answers:
    """A node call that gives the answers it was told, one after another, then the last for ever.

    An answer is a value, an error, or a pair of seconds to wait before it and one of these.
    """

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked_at = list(answers), []

    async def __call__(self) -> Any:
        self.asked_at.append(asyncio.get_running_loop().time())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        seconds, answer = answer if isinstance(answer, tuple) else (0.0, answer)
        await asyncio.sleep(seconds)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def poll(call: Callable[[], Awaitable[bool]], seconds: float) -> list[BusEvent]:
    """Poll for a while, and return what was told."""

    async def main() -> list[BusEvent]:
        bus = Bus()
        feed = bus.feed(BusEvent)
        polling = asyncio.create_task(poll_for_ever("things", call, clock=SimClock(), bus=bus))
        await asyncio.sleep(seconds)
        assert not polling.done()
        polling.cancel()
        await asyncio.wait([polling])
        feed.close()
        return [event async for event in feed]

    return run(main)


def error(kind: type[NodeError]) -> NodeError:
    return kind("GET /things", 500, "no")


@given(
    first=st.floats(0.01, 10),
    most=st.floats(0.01, 100),
    jitter=st.floats(0, 1),
    attempts=st.integers(0, 2000),
    seed=st.integers(),
)
def test_pauses_grow_up_to_their_limit_and_stay_within_their_jitter(
    first: float, most: float, jitter: float, attempts: int, seed: int
) -> None:
    backoff = Backoff(SimClock(seed), first=first, most=most, jitter=jitter, attempts=attempts)
    plain = min(most, first * 2.0 ** min(attempts, 30))
    assert plain * (1 - jitter) <= backoff.next() <= plain * (1 + jitter)
    backoff.reset()
    assert backoff.next() <= min(most, first) * (1 + jitter)


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_a_poll_outlives_every_error_of_the_node(kind: type[NodeError]) -> None:
    answers = Answers(True, error(kind), error(kind), (5.0, True))
    poll(answers, 60)
    assert len(answers.asked_at) > 5


def test_a_poll_outlives_even_a_bug_of_its_own() -> None:
    answers = Answers(RuntimeError("a bug"), (5.0, True))
    assert poll(answers, 60) == []
    assert len(answers.asked_at) > 5


def test_the_loss_of_the_node_and_its_return_are_told_once_each() -> None:
    outage = [error(NodeUnavailable), error(NodeFailure), error(NotFound)]
    lost, back = poll(Answers((2.0, True), *outage, *outage, (10.0, True)), 600)
    assert isinstance(lost, NodeLost)
    assert isinstance(back, NodeBack)
    assert lost.poll == back.poll == "things"
    assert "no" in lost.error
    assert back.seconds == pytest.approx((back.at - lost.at).total_seconds())


def test_each_outage_is_told_anew() -> None:
    told = poll(Answers(*[(1.0, True), error(NodeFailure)] * 3, (9.0, False)), 600)
    assert [type(event) for event in told] == [NodeLost, NodeBack] * 3


@pytest.mark.parametrize("answer", [False, error(RequestTimeout), error(NodeUnavailable), error(NotFound)])
def test_a_node_that_does_not_wait_is_not_flooded(answer: Any) -> None:
    answers = Answers(answer)
    poll(answers, 3600)
    pauses = [after - before for before, after in zip(answers.asked_at, answers.asked_at[1:], strict=False)]
    assert min(pauses) >= 0.3
    assert min(pauses[10:]) >= 10


@pytest.mark.parametrize("answer", [False, error(RequestTimeout)])
def test_a_node_that_waits_is_asked_again_at_once(answer: Any) -> None:
    answers = Answers((30.0, answer))
    assert poll(answers, 299) == []
    assert answers.asked_at == [30.0 * turn for turn in range(10)]


def test_news_are_followed_by_the_next_question_at_once() -> None:
    answers = Answers(*[True] * 50, (1000.0, False))
    poll(answers, 1)
    assert answers.asked_at == [0.0] * 51


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_persisted_through(kind: type[NodeError]) -> None:
    answers = Answers(error(kind), error(kind), "done")
    assert run(lambda: persist(answers, clock=SimClock(), within=60)) == "done"


@pytest.mark.parametrize("kind", [kind for kind in EVERY_ERROR if kind not in PASSING])
def test_what_does_not_pass_is_raised_at_once(kind: type[NodeError]) -> None:
    answers = Answers(error(kind), "never")
    with pytest.raises(kind):
        run(lambda: persist(answers, clock=SimClock(), within=60))
    assert len(answers.asked_at) == 1


@given(within=st.floats(0.1, 1000))
def test_persisting_ends_in_time_with_the_last_failure(within: float) -> None:
    answers = Answers(error(NodeFailure))

    async def main() -> float:
        with pytest.raises(NodeFailure):
            await persist(answers, clock=SimClock(), within=within)
        return asyncio.get_running_loop().time()

    assert run(main) <= within


def test_what_was_never_sent_is_sent_again() -> None:
    answers = Answers(*[NodeUnavailable("POST /x", None, "refused", unsent=True)] * 3, "done")
    assert run(lambda: insist(answers, clock=SimClock(), within=60)) == "done"


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_what_may_have_had_an_effect_is_never_sent_again(kind: type[NodeError]) -> None:
    answers = Answers(error(kind), "a second effect")
    with pytest.raises(kind):
        run(lambda: insist(answers, clock=SimClock(), within=60))
    assert len(answers.asked_at) == 1


def test_insisting_ends_in_time() -> None:
    answers = Answers(NodeUnavailable("POST /x", None, "refused", unsent=True))

    async def main() -> float:
        with pytest.raises(NodeUnavailable):
            await insist(answers, clock=SimClock(), within=60)
        return asyncio.get_running_loop().time()

    assert 40 < run(main) <= 60
