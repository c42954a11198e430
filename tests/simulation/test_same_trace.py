"""The same plan is the same life: in this process, in another one, whatever strings hash to there."""

from __future__ import annotations

import os
import subprocess
import sys

from shem.testing.drive import drive
from shem.testing.grid import BASE, Combinations, landmarks, spread
from shem.testing.life import Life
from shem.testing.plan import Plan

RICH = (
    "Plan(seed=3, providers=3, instances=3, latencies=(0.05, 0.3, 0.0), "
    "faults=(Fault(kind=FaultKind.VANISH, at=4.0, seconds=40.0), "
    "Fault(kind=FaultKind.KILL, at=7.0, which=1), "
    "Fault(kind=FaultKind.CUT_AFTER, at_call=2, call='execute'), "
    "Fault(kind=FaultKind.NODE_RESTART, at=30.0, seconds=15.0)), "
    "actions=(Action(what=ActionKind.SPAWN, at=5.0), Action(what=ActionKind.CANCEL, at=100.0)), "
    "handlers=(HandlerFault(kind=HandlerFaultKind.SWALLOWS, handler='run', seconds=8.0),), "
    "deviations=((2, 1), (9, 2), (30, 1)), policy=RestartPolicy(on='always'), probe=4)"
)
PROGRAM = """
import sys
from shem.testing.drive import drive
from shem.testing.plan import Plan
for line in sys.stdin.read().splitlines():
    print(drive(Plan.replay(line)).trace())
"""


def trace_elsewhere(lines: str, hash_seed: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=lines.encode(),
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_the_same_plan_gives_the_same_trace_in_processes_that_hash_differently(base_life: Life) -> None:
    plans = [
        Plan.replay(RICH),
        BASE,
        *spread(Combinations(base_life), 25),
        *spread(list(landmarks()), 25),
    ]
    lines = "\n".join(map(repr, plans))
    first, second = trace_elsewhere(lines, "1"), trace_elsewhere(lines, "4242")
    assert first == second
    here = "".join(f"{drive(plan).trace()}\n" for plan in plans)
    assert first.decode() == here


def test_a_rich_life_is_told_whole() -> None:
    life = drive(Plan.replay(RICH))
    trace = life.trace()
    assert not life.problems, life.story()
    assert len(life.instances) >= 4
    for instance in life.instances:
        assert str(instance.records[-1]) in trace
    for what in ("call execute", "VANISH", "NODE_RESTART", "InvoiceAccepted", "shutdown"):
        assert what in trace


def test_another_seed_is_another_life() -> None:
    one, other = drive(Plan(seed=1)), drive(Plan(seed=2))
    assert one.instances[0].activities != other.instances[0].activities
    assert one.trace() != other.trace()
