"""`make soak`: its limits, its exit code, what it prints."""

from __future__ import annotations

import io

import pytest

from shem.lifecycle import Event
from shem.service.instance import Instance
from shem.testing.plan import Plan
from shem.testing.search import Summary
from shem.testing.soak import main, random_lives, soak


def test_it_ends_after_so_many_plans() -> None:
    reports: list[Summary] = []
    summary = soak(30, 600.0, processes=1, report=lambda summary, _seconds: reports.append(summary))
    assert summary.plans >= 20
    assert not summary.violations


def test_it_ends_when_the_time_is_over() -> None:
    assert soak(10**9, 0.0, processes=1).plans == 0


def test_it_prints_a_summary_and_which_arrows_were_not_taken() -> None:
    out = io.StringIO()
    assert main(["--plans", "10", "--minutes", "1", "--seed", "3", "--processes", "1"], out) == 0
    assert "violations 0, table coverage" in out.getvalue()
    assert "never taken: unresponsive → pending by AgreementTerminated" in out.getvalue()


def test_a_violation_is_shrunk_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Instance.why

    def why(instance: Instance) -> str:
        killed = instance.records[-1].event is Event.ACTIVITY_LOST
        return "it just ended" if killed else honest(instance)

    monkeypatch.setattr(Instance, "why", why)
    summary = random_lives(200, 1)
    assert summary.violations == 1
    failure = summary.failures[0]
    assert failure.plan.weight == 1
    assert Plan.replay(repr(failure.plan)) == failure.plan
    assert repr(failure.plan) in summary.story()
    assert failure.problems[0] in summary.story()
