from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem import props
from shem.engine.strategy import LeastExpensive, Offer
from shem.engine.terms import Terms
from shem.ids import NodeId, ProposalId
from shem.yagna.models import Proposal


def offer(cpu: float = 0.0, duration: float = 0.0, start: float = 0.0, name: str = "mill") -> Offer:
    properties = {
        props.NODE_NAME: name,
        props.PRICING_MODEL: "linear",
        props.USAGE_VECTOR: [props.CPU_SEC, props.DURATION_SEC],
        props.LINEAR_COEFFS: [cpu, duration, start],
    }
    proposal = Proposal(
        proposal_id=ProposalId("R-1"),
        issuer_id=NodeId("0x1"),
        state="Initial",
        timestamp=datetime(2030, 1, 1, tzinfo=UTC),
        properties=properties,
    )
    return Offer(proposal, Terms.of_offer(properties))


@pytest.mark.parametrize(
    ("expensive", "complaint"),
    [
        (offer(cpu=0.21), "price of golem.usage.cpu_sec is 0.21 GLM, above the cap of 0.2"),
        (offer(duration=0.11), "price of golem.usage.duration_sec is 0.11 GLM, above the cap of 0.1"),
        (offer(start=1.1), "start price 1.1 GLM is above the cap of 1.0"),
    ],
)
def test_a_price_above_its_cap_is_refused_by_name(expensive: Offer, complaint: str) -> None:
    assert LeastExpensive().objection(expensive) == complaint


def test_a_price_at_its_cap_is_taken() -> None:
    assert LeastExpensive().objection(offer(cpu=0.2, duration=0.1, start=1.0)) is None


def test_caps_are_the_users_to_set() -> None:
    strategy = LeastExpensive(max_start_price=Decimal(5), max_prices={props.CPU_SEC: Decimal("0.01")})
    assert strategy.objection(offer(duration=99.0, start=5.0)) is None
    assert "above the cap of 0.01" in (strategy.objection(offer(cpu=0.02)) or "")


@given(st.floats(0, 0.2), st.floats(0, 0.1), st.floats(0, 1), st.floats(0.001, 0.01))
def test_what_costs_less_is_ranked_first(cpu: float, duration: float, start: float, more: float) -> None:
    strategy = LeastExpensive()
    cheap = strategy.rank(offer(cpu, duration, start))
    assert cheap < strategy.rank(offer(cpu + more, duration, start))
    assert cheap < strategy.rank(offer(cpu, duration + more, start))
    assert cheap < strategy.rank(offer(cpu, duration, start + more))


def test_a_short_run_prefers_a_low_start_price_and_a_long_one_a_low_rate() -> None:
    slow_burner, quick_shot = offer(duration=0.0001, start=1.0), offer(duration=0.01, start=0.0)
    short, long = LeastExpensive(expected_seconds=10), LeastExpensive(expected_seconds=36_000)
    assert short.rank(quick_shot) < short.rank(slow_burner)
    assert long.rank(slow_burner) < long.rank(quick_shot)


def test_an_offer_knows_who_made_it() -> None:
    assert (offer(name="mill").provider_name, offer().provider_id) == ("mill", "0x1")
