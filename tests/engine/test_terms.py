from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem import props
from shem.devnet.offers import cost as devnet_cost
from shem.engine.payment import Tolerance
from shem.engine.terms import Terms, UnusableTerms

PRICES = st.floats(0, 1e3)
USAGE = st.floats(0, 1e7)


def offer(coefficients: Any, counters: Any = (props.CPU_SEC, props.DURATION_SEC)) -> dict[str, Any]:
    return {
        props.PRICING_MODEL: "linear",
        props.LINEAR_COEFFS: coefficients,
        props.USAGE_VECTOR: list(counters) if isinstance(counters, tuple) else counters,
    }


@given(st.tuples(PRICES, PRICES, PRICES), st.tuples(USAGE, USAGE))
def test_the_cost_is_each_price_times_its_usage_and_the_start(
    prices: tuple[float, float, float], usage: tuple[float, float]
) -> None:
    cpu, duration, start = prices
    plain = cpu * usage[0] + duration * usage[1] + start
    assert float(Terms.of_offer(offer(list(prices))).cost(usage)) == pytest.approx(plain, rel=1e-9, abs=1e-15)


@given(st.tuples(PRICES, PRICES, PRICES), st.tuples(USAGE, USAGE))
def test_requestor_and_built_in_provider_come_to_the_same_amount(
    prices: tuple[float, float, float], usage: tuple[float, float]
) -> None:
    ours, theirs = Terms.of_offer(offer(list(prices))).cost(usage), devnet_cost(prices, usage)
    assert Tolerance().allows(theirs, ours)
    assert Tolerance().allows(ours, theirs)


@given(st.tuples(USAGE, USAGE), st.tuples(USAGE, USAGE))
def test_more_usage_never_costs_less(usage: tuple[float, float], more: tuple[float, float]) -> None:
    terms = Terms.of_offer(offer([0.0123, 0.4, 1.0]))
    assert terms.cost(usage) <= terms.cost([usage[0] + more[0], usage[1] + more[1]])


@given(
    st.lists(st.floats(0, 1e15), min_size=3, max_size=3),
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=4),
)
def test_no_figure_of_a_provider_can_break_the_sum(prices: list[float], usage: list[float]) -> None:
    amount = Terms.of_offer(offer(prices)).cost(usage)
    assert amount.is_finite()
    assert amount >= 0


def test_usage_that_is_no_number_counts_as_none() -> None:
    terms = Terms.of_offer(offer([1.0, 1.0, 2.0]))
    assert terms.cost([math.nan, math.inf]) == terms.cost([-5.0, 0.0]) == terms.cost([]) == 2


@pytest.mark.parametrize(
    ("properties", "complaint"),
    [
        ({}, "None is not linear"),
        ({**offer([1.0, 1.0, 1.0]), props.PRICING_MODEL: "auction"}, "'auction' is not linear"),
        (offer(None), "missing"),
        (offer([1.0, 1.0, 1.0], None), "missing"),
        (offer("abc"), "missing"),
        (offer([1.0, 1.0]), "2 prices for 2 usage counters"),
        (offer([1.0, 1.0, 1.0, 1.0]), "4 prices for 2 usage counters"),
        (offer([1.0, "1", 1.0]), "not all numbers"),
        (offer([1.0, True, 1.0]), "not all numbers"),
        (offer([1.0, None, 1.0]), "not all numbers"),
        (offer([1.0, -0.1, 1.0]), "not all between"),
        (offer([1.0, math.nan, 1.0]), "not all between"),
        (offer([1.0, math.inf, 1.0]), "not all between"),
        (offer([1.0, 10**400, 1.0]), "not all between"),
        (offer([1.0, 1.0, 1e300]), "not all between"),
    ],
)
def test_an_offer_whose_price_cannot_be_read_is_refused_by_name(
    properties: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UnusableTerms, match=complaint):
        Terms.of_offer(properties)


def test_a_counter_that_is_not_charged_for_has_no_price() -> None:
    assert Terms.of_offer(offer([0.5, 0.25, 1.0])).price_of("golem.usage.gib") == 0


def test_a_counter_that_is_named_twice_costs_both_prices() -> None:
    terms = Terms.of_offer(offer([0.5, 0.25, 0.0], (props.CPU_SEC, props.CPU_SEC)))
    assert terms.price_of(props.CPU_SEC) == Decimal("0.75")


def test_a_run_is_expected_to_keep_one_thread_busy() -> None:
    terms = Terms.of_offer(
        offer([0.5, 0.25, 9.0, 1.0], (props.CPU_SEC, props.DURATION_SEC, "golem.usage.gib"))
    )
    assert terms.expected(4) == 4 * Decimal("0.75") + 1
