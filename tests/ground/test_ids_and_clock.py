"""Ids for people, and the one source of time and chance."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.clock import Clock, SystemClock
from shem.ids import short
from shem.testing import SimClock
from shem.testing.sim import run

HEX = st.text("0123456789abcdef", min_size=8, max_size=64)


@given(HEX)
def test_a_short_id_is_the_beginning_without_the_node_s_prefix(identifier: str) -> None:
    assert short(identifier) == identifier[:8]
    assert short(f"R-{identifier}") == identifier[:8]
    assert short(f"0x{identifier}") == identifier[:8]


@given(st.text(), st.integers(1, 20))
def test_a_short_id_is_never_longer_than_asked(identifier: str, length: int) -> None:
    assert len(short(identifier, length)) <= length
    assert short(identifier, length) in identifier


def check(clock: Clock) -> None:
    assert clock.now().tzinfo is UTC
    readings = [clock.monotonic() for _ in range(100)]
    assert readings == sorted(readings)
    assert all(0 <= clock.random() < 1 for _ in range(100))
    ids = [clock.unique_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)
    assert all(re.fullmatch("[0-9a-f]{64}", clock.secret()) for _ in range(5))
    assert clock.secret() != clock.secret()


def test_the_system_s_clock_keeps_the_promises_of_a_clock() -> None:
    check(SystemClock())
    assert abs((SystemClock().now() - datetime.now(UTC)).total_seconds()) < 5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_simulated_clock_keeps_the_promises_of_a_clock(seed: int) -> None:
    async def main() -> None:
        check(SimClock(seed))

    run(main)


def test_the_simulated_clock_says_the_same_in_every_run_of_one_seed() -> None:
    async def main() -> list[object]:
        clock = SimClock(7)
        return [clock.now(), clock.random(), clock.unique_id(), clock.secret(), clock.random()]

    assert run(main) == run(main)
