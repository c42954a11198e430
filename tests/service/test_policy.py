"""Decisions about failures: how often, how late, where, and for whose errors."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem import errors
from shem.errors import Blame, ConfigError
from shem.ids import NodeId
from shem.service.policy import Attempts, PenaltyBox, RestartPolicy


class HandClock:
    """A clock set by hand; its chance is what the test says."""

    def __init__(self, chance: float = 0.5) -> None:
        self.time, self.chance = 1000.0, chance

    def monotonic(self) -> float:
        return self.time

    def random(self) -> float:
        return self.chance


chances = st.floats(0, 1, exclude_max=True)
backoffs = st.floats(0.01, 100)
jitters = st.floats(0, 1)

# --- pauses


@given(backoffs, st.floats(0.01, 1000), jitters, chances, st.integers(1, 10_000))
def test_a_pause_stays_within_its_jitter_around_the_backoff_and_below_its_limit(
    backoff: float, limit: float, jitter: float, chance: float, failures: int
) -> None:
    policy = RestartPolicy(backoff=backoff, max_backoff=limit, jitter=jitter)
    pause = policy.pause(failures, HandClock(chance))  # type: ignore[arg-type]  # all that a pause asks
    plain = min(limit, backoff * 2.0 ** min(failures - 1, 30))
    slack = 1e-9 * plain
    assert plain * (1 - jitter) - slack <= pause <= plain * (1 + jitter) + slack
    assert 0 <= pause <= 2 * limit


@given(backoffs, st.integers(1, 100))
def test_without_jitter_pauses_double_up_to_their_limit(backoff: float, failures: int) -> None:
    policy = RestartPolicy(backoff=backoff, max_backoff=60, jitter=0)
    clock: Any = HandClock()
    now, later = policy.pause(failures, clock), policy.pause(failures + 1, clock)
    assert later == min(60, 2 * now) or now == later == 60
    assert policy.pause(1, clock) == min(60, backoff)


@given(chances, chances, jitters)
def test_more_chance_means_a_longer_pause(less: float, more: float, jitter: float) -> None:
    policy = RestartPolicy(jitter=jitter)
    pauses = [policy.pause(3, HandClock(chance)) for chance in sorted((less, more))]  # type: ignore[arg-type]
    assert pauses == sorted(pauses)


# --- attempts


@given(
    st.integers(1, 6),
    st.floats(1, 1000),
    st.lists(st.floats(0, 400), min_size=1, max_size=20),
)
def test_attempts_are_left_exactly_while_fewer_than_the_limit_failed_within_the_period(
    attempts: int, per: float, gaps: list[float]
) -> None:
    clock: Any = HandClock()
    tries = Attempts(RestartPolicy(attempts=attempts, per=per, jitter=0, backoff=1, max_backoff=1e9), clock)
    failed_at: list[float] = []
    assert tries.left and tries.failures == 0
    for gap in gaps:
        clock.time += gap
        recent = [moment for moment in failed_at if moment >= clock.time - per]
        assert tries.failures == min(len(recent), attempts)
        assert tries.left == (len(recent) < attempts)
        assert tries.pause() == 2.0 ** (max(1, tries.failures) - 1)
        tries.failed()
        failed_at.append(clock.time)
    clock.time += per + 1
    assert tries.left and tries.failures == 0


def test_a_crash_loop_uses_no_more_memory_than_its_limit() -> None:
    clock: Any = HandClock()
    tries = Attempts(RestartPolicy(attempts=3), clock)
    for _ in range(1000):
        tries.failed()
    assert len(tries._failed_at) == 3


# --- worth it or not


@pytest.mark.parametrize(
    ("error", "by_default", "with_user_errors"),
    [
        (None, True, True),
        (errors.ActivityGone("x"), True, True),
        (errors.CommandFailed("run", 0, "x"), True, True),
        (errors.NodeUnavailable("GET /", None, "x"), True, True),
        (errors.NoOffers("x"), True, True),
        (ValueError("x"), False, True),
        (errors.ScriptMisuse("x"), False, True),
        (errors.ConfigError("x"), False, True),
        (errors.PaymentError("x"), False, False),
        (errors.ServiceDefinitionError("x"), False, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_only_what_could_end_otherwise_elsewhere_is_tried_again(
    error: Exception | None, by_default: bool, with_user_errors: bool
) -> None:
    assert RestartPolicy().worth_retrying(error) is by_default
    assert RestartPolicy(user_errors=True).worth_retrying(error) is with_user_errors


@pytest.mark.parametrize("blame", Blame)
@pytest.mark.parametrize("user_errors", [True, False])
def test_every_kind_of_blame_is_decided_about(blame: Blame, user_errors: bool) -> None:
    error = type("Odd", (errors.ShemError,), {"blame": blame})("x")
    expected = blame in (Blame.PROVIDER, Blame.INFRASTRUCTURE) or (blame is Blame.USER and user_errors)
    assert RestartPolicy(user_errors=user_errors).worth_retrying(error) is expected


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"on": "sometimes"}, "on='sometimes' is none of 'never', 'failure', 'always'"),
        ({"where": "there"}, "where='there' is none of 'other', 'any'"),
        *(
            ({name: value}, f"{name} must be 0 s or more")
            for name in ("per", "backoff", "max_backoff", "penalty")
            for value in (-1, float("nan"))
        ),
        ({"attempts": 0}, "attempts must be at least 1"),
        ({"jitter": 1.5}, "jitter between 0 and 1"),
        ({"jitter": -0.1}, "jitter between 0 and 1"),
        ({"jitter": float("nan")}, "jitter between 0 and 1"),
    ],
    ids=str,
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"RestartPolicy: .*{complaint}"):
        RestartPolicy(**wrong)


def test_a_policy_is_a_frozen_value_and_by_default_fills_no_slot_again() -> None:
    assert RestartPolicy() == RestartPolicy() and RestartPolicy().on == "never"
    with pytest.raises(dataclasses.FrozenInstanceError):
        RestartPolicy().on = "always"  # type: ignore[misc]  # that is the point


# --- the penalty box

moments = st.lists(
    st.tuples(st.sampled_from("abc"), st.floats(0, 50), st.sampled_from(["put", "look"])), max_size=30
)


@given(st.floats(0, 100), moments)
def test_a_provider_is_avoided_exactly_for_its_penalty_since_it_was_put_in_last(
    penalty: float, doings: list[tuple[str, float, str]]
) -> None:
    clock: Any = HandClock()
    box = PenaltyBox(penalty, clock)
    last: dict[str, float] = {}
    for provider, gap, doing in doings:
        clock.time += gap
        if doing == "put":
            box.put(NodeId(provider))
            last[provider] = clock.time
        avoided = {name for name, moment in last.items() if penalty > 0 and clock.time < moment + penalty}
        assert box.inside() == avoided
        assert {name for name in "abc" if name in box} == avoided


def test_a_box_with_no_penalty_keeps_nobody() -> None:
    clock: Any = HandClock()
    box = PenaltyBox(0, clock)
    box.put(NodeId("a"))
    assert NodeId("a") not in box and box.inside() == frozenset()
