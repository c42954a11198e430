"""Bounded exhaustive exploration: everything that can go wrong once, everywhere, on the real machinery."""

from __future__ import annotations

import itertools
from dataclasses import replace

from shem.lifecycle import SERVICE
from shem.testing.grid import (
    Combinations,
    actions_everywhere,
    deviations_everywhere,
    ends_everywhere,
    faults_everywhere,
    handler_faults_everywhere,
    singles,
    spread,
)
from shem.testing.life import Life
from shem.testing.plan import ActionKind, FaultKind, HandlerFaultKind
from shem.testing.search import KEPT, Summary, search


def test_no_single_trouble_and_none_of_the_combinations_breaks_an_invariant(exhaustive: Summary) -> None:
    assert not exhaustive.violations, f"{exhaustive}\n{exhaustive.story()}"


def test_at_least_ten_thousand_lives_are_lived(exhaustive: Summary, at_random: Summary) -> None:
    assert exhaustive.plans + at_random.plans >= 10_000


def test_the_two_searches_together_take_every_arrow_of_the_table(
    exhaustive: Summary, at_random: Summary
) -> None:
    together = Summary()
    together.merge(exhaustive)
    together.merge(at_random)
    assert not together.missing, [f"{m.source} → {m.dest} by {m.event}" for m in together.missing]
    assert set(together.arrows) <= set(SERVICE.moves)


def test_the_singles_hold_every_kind_of_trouble_at_every_place(base_life: Life) -> None:
    plans = list(singles(base_life))
    faults = [fault for plan in plans for fault in plan.faults]
    actions = [action for plan in plans for action in plan.actions]
    wrong = [one for plan in plans for one in plan.handlers]
    # Where nothing was lost there is nothing to recover.
    assert {fault.kind for fault in faults} == set(FaultKind) - {FaultKind.RECOVER}
    assert {(one.what, one.at_step) for one in actions} == set(
        itertools.product(ActionKind, range(1, base_life.steps + 1))
    )
    assert {one.kind for one in wrong} == set(HandlerFaultKind)
    assert {one.handler for one in wrong} >= {"start", "run", "shutdown", "reset", "on_running"}
    calls = set(range(1, len(base_life.calls) + 1))
    assert calls <= {fault.at_call for fault in faults if fault.kind is FaultKind.CUT_AFTER}
    assert len({plan.deviations for plan in plans}) == 1 + len(list(deviations_everywhere(base_life)))
    assert len(set(plans)) == len(plans)


def test_the_base_life_is_a_good_one(base_life: Life) -> None:
    assert not base_life.problems, base_life.story()
    assert not base_life.happened
    assert [record.dest.value for record in base_life.records] == [
        "starting",
        "running",
        "stopping",
        "terminated",
    ]


def test_combinations_are_spread_over_the_whole_space(base_life: Life) -> None:
    combinations = Combinations(base_life)
    chosen = list(spread(combinations, 3000))
    assert len(set(chosen)) == 3000
    troubles = sum(
        len(list(some))
        for some in (
            faults_everywhere(base_life),
            ends_everywhere(base_life),
            handler_faults_everywhere(),
        )
    )
    assert len(combinations) == (
        troubles
        * len(list(actions_everywhere(base_life)))
        * (1 + len(list(deviations_everywhere(base_life))))
    )
    assert len({(plan.faults, plan.handlers) for plan in chosen}) > 0.8 * troubles
    assert {plan.actions[0].what for plan in chosen} == set(ActionKind)
    first, rest = list(spread(combinations, 10)), list(spread(combinations, 5, start=5))
    assert first[5:] == rest


def test_several_processes_find_what_one_finds(base_life: Life) -> None:
    plans = list(spread(Combinations(base_life), 60))
    alone, together = search(plans), search(plans, processes=2)
    assert (alone.plans, alone.arrows) == (together.plans, together.arrows)
    assert str(alone) == str(together)


def test_a_violation_is_counted_kept_and_told(base_life: Life) -> None:
    summary = Summary()
    summary.add(base_life)
    summary.add(replace(base_life, problems=("something: is wrong",)))
    assert (summary.plans, summary.violations) == (2, 1)
    assert summary.failures[0].plan == base_life.plan
    assert "plans 2, moves 8, violations 1, table coverage 4/33 (12 %)" in str(summary)
    assert repr(base_life.plan) in summary.story()


def test_the_lightest_failures_are_kept(base_life: Life) -> None:
    def failed(*deviations: tuple[int, int]) -> Summary:
        summary = Summary()
        plan = replace(base_life.plan, deviations=deviations)
        summary.add(replace(base_life, plan=plan, problems=("something: is wrong",)))
        return summary

    together = Summary()
    for number in range(1, 60):
        together.merge(failed(*((place, 1) for place in range(1, 1 + number % 6))))
    assert together.violations == 59
    assert len(together.failures) == KEPT
    assert not together.failures[0].plan.deviations
    weights = [failure.weight for failure in together.failures]
    assert weights == sorted(weights)
