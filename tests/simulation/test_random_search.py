"""Random search: hypothesis draws plans, the real machinery lives through them, what fails is shrunk."""

from __future__ import annotations

from hypothesis import given, settings

from shem.testing.drive import drive
from shem.testing.plan import Plan
from shem.testing.search import Summary
from shem.testing.soak import random_lives
from shem.testing.strategies import plans


def test_no_random_plan_breaks_an_invariant(at_random: Summary) -> None:
    assert not at_random.violations, f"{at_random}\n{at_random.story()}"


def test_random_plans_get_around(at_random: Summary) -> None:
    assert len(at_random.missing) <= 6, at_random


def test_the_same_seed_draws_the_same_plans() -> None:
    first, second = random_lives(40, 7), random_lives(40, 7)
    assert (first.plans, first.arrows) == (second.plans, second.arrows)


@settings(max_examples=60)
@given(plans())
def test_plans_can_be_drawn_by_anybody(plan: Plan) -> None:
    life = drive(plan)
    assert not life.problems, life.story()
