"""The rules by which a provider answers a demand, as properties over all demands."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from shem.devnet.negotiation import Refused, negotiate, seconds_until
from shem.devnet.offers import offer_properties
from shem.devnet.settings import PLATFORMS, ProviderSettings
from shem.props import (
    CHOSEN_PLATFORM,
    DEBIT_NOTE_ACCEPT_TIMEOUT,
    DEBIT_NOTE_INTERVAL,
    EXPIRATION,
    PAYMENT_TIMEOUT,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
OFFER = offer_properties(ProviderSettings(), "p", "0xwallet")
HOUR, DAY = 3600, 86_400
NEGOTIABLE = (DEBIT_NOTE_ACCEPT_TIMEOUT, DEBIT_NOTE_INTERVAL, PAYMENT_TIMEOUT)

seconds = st.integers(0, 2 * DAY) | st.floats(0, 2 * DAY, allow_nan=False)
demands = st.builds(
    lambda platform, ahead, terms: {
        CHOSEN_PLATFORM: platform,
        EXPIRATION: int((NOW.timestamp() + ahead) * 1000),
        **{key: value for key, value in zip(NEGOTIABLE, terms, strict=True) if value is not None},
    },
    st.sampled_from(PLATFORMS),
    st.integers(0, 3 * DAY),
    st.tuples(*[st.none() | seconds] * 3),
)
agreeable = st.builds(
    lambda platform, ahead, accept, interval, payment: {
        CHOSEN_PLATFORM: platform,
        EXPIRATION: int((NOW.timestamp() + ahead) * 1000),
        DEBIT_NOTE_ACCEPT_TIMEOUT: accept,
        PAYMENT_TIMEOUT: payment,
        **({} if interval is None else {DEBIT_NOTE_INTERVAL: interval}),
    },
    st.sampled_from(PLATFORMS),
    st.integers(300, 100 * 364 * DAY),
    st.integers(5, 240) | st.floats(5, 240),
    st.none() | st.integers(1, DAY),
    st.integers(1, DAY) | st.floats(1, DAY),
)


def good(ahead: float = 1200.0, **terms: object) -> dict[str, object]:
    return {
        CHOSEN_PLATFORM: PLATFORMS[0],
        EXPIRATION: int((NOW.timestamp() + ahead) * 1000),
        DEBIT_NOTE_ACCEPT_TIMEOUT: 120,
        PAYMENT_TIMEOUT: 120,
        **terms,
    }


@given(agreeable)
def test_an_agreed_offer_differs_from_the_published_one_only_where_it_is_negotiable(demand):
    answer = negotiate(OFFER, demand, NOW)
    assert isinstance(answer, dict)
    for key, value in OFFER.items():
        if key not in NEGOTIABLE:
            assert answer[key] == value
    for key in NEGOTIABLE:
        assert answer.get(key) == demand.get(key)
    assert set(answer) <= set(OFFER)


@given(agreeable)
def test_a_demand_with_an_agreed_offers_terms_is_agreed_to_without_another_change(demand):
    answer = negotiate(OFFER, demand, NOW)
    assert isinstance(answer, dict)
    assert negotiate(OFFER, demand, NOW) == answer
    assert negotiate(answer, demand, NOW) == answer


@given(demands)
def test_nothing_is_agreed_to_outside_the_limits(demand):
    answer = negotiate(OFFER, demand, NOW)
    ahead = seconds_until(demand[EXPIRATION], NOW)
    accept, interval, payment = (demand.get(key) for key in NEGOTIABLE)
    fits = (
        300 <= ahead
        and (accept is not None or ahead <= 1800)
        and (payment is not None or ahead <= 10 * HOUR)
        and (accept is None or 5 <= accept <= 240)
        and (interval is None or 1 <= interval <= DAY)
        and (payment is None or 1 <= payment <= DAY)
    )
    assert isinstance(answer, dict) == fits


@given(
    st.sampled_from(NEGOTIABLE), st.text() | st.booleans() | st.lists(st.integers()) | st.just(float("nan"))
)
def test_a_term_that_is_no_number_is_refused(key, value):
    answer = negotiate(OFFER, good(**{key: value}), NOW)
    assert isinstance(answer, Refused)
    assert key in answer.message


@given(st.none() | st.text() | st.booleans())
def test_a_demand_without_a_usable_expiration_is_refused(value):
    answer = negotiate(OFFER, good(**{EXPIRATION: value}), NOW)
    assert isinstance(answer, Refused)


def test_work_of_more_than_a_hundred_years_is_refused():
    assert isinstance(negotiate(OFFER, good(ahead=101 * 365 * DAY), NOW), Refused)


def test_a_platform_that_is_missing_or_strange_is_refused_for_now_only():
    for platform in (None, "erc20-mainnet-glm", 7):
        answer = negotiate(OFFER, good(**{CHOSEN_PLATFORM: platform}), NOW)
        assert answer.final is False


def test_the_published_offer_is_not_changed_by_negotiating():
    before = dict(OFFER)
    negotiate(OFFER, {CHOSEN_PLATFORM: PLATFORMS[0], EXPIRATION: int(NOW.timestamp() * 1000) + 600_000}, NOW)
    assert before == OFFER
