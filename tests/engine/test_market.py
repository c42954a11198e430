from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from shem import props
from shem.devnet.settings import ProviderSettings, Timings
from shem.engine.market import MarketPace
from shem.engine.strategy import LeastExpensive, Offer
from shem.errors import BadRequest, ConfigError, Gone, NodeFailure, NodeUnavailable, NoOffers, NotFound
from shem.events import DemandPublished, DemandWithdrawn, ProposalRejected
from shem.payload import VmPayload
from shem.testing.link import ANY

CHEAP = (0.0001, 0.00005, 0.0)


def now() -> float:
    return asyncio.get_running_loop().time()


def providers(**prices: tuple[float, float, float]) -> list[ProviderSettings]:
    return [ProviderSettings(name=name, coeffs=coeffs) for name, coeffs in prices.items()]


async def take_all(lab: Any, market: Any, count: int) -> list[str]:
    takes = [market.take(within=60.0) for _ in range(count)]
    return [offer.provider_name for offer in await asyncio.gather(*takes)]


# --- negotiating


def test_the_demand_says_what_providers_insist_on(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market(hours=24)
        asked = market.demand.properties
        assert asked[props.EXPIRATION] == int(market.expires.timestamp() * 1000)
        assert asked[props.SUBNET] == "public"
        # Without these three, runs of more than 30 minutes or 10 hours are refused (contract 4.6).
        assert asked[props.DEBIT_NOTE_ACCEPT_TIMEOUT] == 120
        assert asked[props.DEBIT_NOTE_INTERVAL] == 120
        assert asked[props.PAYMENT_TIMEOUT] == 12 * 3600
        assert "(golem.com.pricing.model=linear)" in market.demand.constraints
        assert any(key.startswith("golem.com.payment.platform.erc20-holesky") for key in asked)

    play_engine(story)


@pytest.mark.parametrize("hours", [0.1, 0.6, 11, 24, 24 * 365])
def test_providers_take_short_runs_and_long_ones(play_engine: Any, hours: float) -> None:
    async def story(lab: Any) -> None:
        assert await take_all(lab, await lab.market(hours=hours), 1) == ["devnet-1"]

    play_engine(story, providers=1)


def test_the_counter_proposal_asks_for_no_more_time_than_the_offer_grants(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        offer = await (await lab.market()).take(within=60)
        assert offer.proposal.properties[props.DEBIT_NOTE_ACCEPT_TIMEOUT] == 60

    play_engine(story, providers=[ProviderSettings(accept_timeout=60)])


def test_the_cheapest_offer_is_handed_out_first(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        assert await take_all(lab, await lab.market(), 3) == ["low", "middle", "high"]

    play_engine(
        story, providers=providers(high=(0.03, 0.01, 0.0), low=(0.01, 0.01, 0.0), middle=(0.02, 0.01, 0.0))
    )


def test_equally_priced_offers_are_spread_over_providers(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        for _round in range(4):
            leases = [await lab.lease(market) for _ in range(3)]
            await lab.give_back(*leases)
        taken = Counter(lease.provider_name for lease in leases)
        assert taken == {"a": 1, "b": 1, "c": 1}

    play_engine(story, providers=providers(a=CHEAP, b=CHEAP, c=CHEAP))


def test_one_after_another_equally_priced_providers_take_turns(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market, names = await lab.market(), Counter[str]()
        for _turn in range(9):
            lease = await lab.lease(market)
            names[lease.provider_name] += 1
            await lab.give_back(lease)
            # So that the one who was just given back is among the offers again.
            await asyncio.sleep(1)
        assert names == {"a": 3, "b": 3, "c": 3}

    play_engine(story, providers=providers(a=CHEAP, b=CHEAP, c=CHEAP))


@pytest.mark.parametrize(
    ("prices", "complaint"),
    [
        ((0.3, 0.0, 0.0), "price of golem.usage.cpu_sec is 0.3 GLM, above the cap of 0.2"),
        ((0.0, 0.2, 0.0), "price of golem.usage.duration_sec is 0.2 GLM, above the cap of 0.1"),
        ((0.0, 0.0, 2.0), "start price 2.0 GLM is above the cap of 1.0"),
    ],
)
def test_offers_above_a_cap_are_refused_by_name(
    play_engine: Any, prices: tuple[float, float, float], complaint: str
) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        with pytest.raises(NoOffers, match="1 offers seen, the last objection was: " + complaint):
            await market.take(within=10)
        [refused] = lab.heard(ProposalRejected)
        assert (refused.provider_name, refused.by, refused.reason) == ("greedy", "requestor", complaint)
        assert "reject_proposal" in lab.world.calls

    play_engine(story, providers=providers(greedy=prices))


def test_an_offer_whose_price_cannot_be_read_is_refused_by_name(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        for offer in lab.world.node.market._offers.values():
            offer.properties[props.LINEAR_COEFFS] = [0.1, 0.1, 1e300]
        with pytest.raises(NoOffers, match="prices are not all between 0 and"):
            await (await lab.market()).take(within=10)

    play_engine(story, providers=1)


def test_a_refusal_that_does_not_get_through_is_only_a_courtesy_less(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.fail("reject_proposal", NodeFailure, times=9)
        with pytest.raises(NoOffers, match="start price"):
            await (await lab.market()).take(within=10)

    play_engine(story, providers=providers(greedy=(0.0, 0.0, 2.0)))


class Fickle(LeastExpensive):
    """Likes everybody at first sight, and nobody at the second."""

    def objection(self, offer: Offer) -> str | None:
        return "its draft is dearer than its offer" if offer.proposal.state == "Draft" else None


def test_a_draft_is_judged_anew(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        with pytest.raises(NoOffers, match="its draft is dearer than its offer"):
            await (await lab.market()).take(within=10)
        assert "create_agreement" not in lab.world.calls

    play_engine(story, settings={"strategy": Fickle()})


class Broken:
    """A strategy of a user who has made a mistake."""

    def __init__(self, where: str) -> None:
        self.where = where

    def objection(self, offer: Offer) -> str | None:
        if self.where == "objection" and offer.provider_name == "devnet-1":
            raise KeyError("a mistake")
        return None

    def rank(self, offer: Offer) -> Decimal:
        if self.where == "rank" and offer.provider_name == "devnet-1":
            raise ZeroDivisionError("a mistake")
        return Decimal(1)


@pytest.mark.parametrize("where", ["objection", "rank"])
def test_a_strategy_that_raises_costs_the_offer_and_not_the_market(play_engine: Any, where: str) -> None:
    async def story(lab: Any) -> None:
        assert await take_all(lab, await lab.market(), 1) == ["devnet-2"]
        await asyncio.sleep(0)
        [refused] = lab.heard(ProposalRejected)
        assert "the strategy raised" in refused.reason
        assert "a mistake" in refused.reason

    play_engine(story, providers=2, settings={"strategy": Broken(where)})


def test_a_provider_without_room_is_reported_and_taken_when_it_has_some(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        lease = await lab.lease(market)
        # A demand of somebody else, which the busy provider refuses for now.
        other = await lab.market()
        waiting = asyncio.create_task(other.take(within=60))
        await asyncio.sleep(5)
        assert "No capacity" in lab.heard(ProposalRejected)[0].reason
        await lab.give_back(lease)
        assert (await waiting).provider_name == "devnet-1"

    play_engine(story, providers=1)


# --- no offers


def test_without_offers_the_reason_is_clear_and_the_wait_bounded(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market(payload=VmPayload(image_hash="a" * 56, min_mem_gib=999.0))
        began = now()
        with pytest.raises(NoOffers, match=r"(?s)within 30 s: 0 offers seen; constraints: .*999"):
            await market.take(within=30)
        assert now() - began == pytest.approx(30)

    play_engine(story)


def test_avoided_providers_are_counted_in_the_reason(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market(payload=VmPayload(image_hash="a" * 56, min_mem_gib=999.0))
        with pytest.raises(NoOffers, match="2 providers are being avoided"):
            await market.take(avoid={"0x1", "0x2"}, within=30)

    play_engine(story)


def test_a_market_that_is_closed_lets_nobody_wait(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market(payload=VmPayload(image_hash="a" * 56, min_mem_gib=999.0))
        waiting = asyncio.create_task(market.take(within=300))
        await asyncio.sleep(1)
        began = now()
        await market.close()
        with pytest.raises(NoOffers, match="the demand was withdrawn"):
            await waiting
        assert now() == began

    play_engine(story)


# --- avoiding


def test_an_avoided_provider_is_taken_only_when_no_other_shows_up(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        [avoided] = [provider.node_id for provider in lab.world.node.providers]
        began = now()
        offer = await market.take(avoid={avoided}, within=60)
        assert offer.provider_id == avoided
        assert now() - began == pytest.approx(MarketPace().second_choice, abs=0.1)

    play_engine(story, providers=1)


def test_an_avoided_provider_is_left_for_others_however_cheap_it_is(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        low = lab.world.node.provider("low").node_id
        assert (await market.take(avoid={low}, within=60)).provider_name == "high"
        assert (await market.take(within=60)).provider_name == "low"

    play_engine(story, providers=providers(low=CHEAP, high=(0.1, 0.1, 1.0)))


# --- a node that fails


def test_a_demand_the_node_has_dropped_is_published_anew(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        assert await take_all(lab, market, 1) == ["devnet-1"]
        await asyncio.sleep(200)
        assert len(lab.heard(DemandPublished)) == 3
        # The draft of a demand that is gone went with it, and came again with the new one.
        assert await take_all(lab, market, 1) == ["devnet-1"]

    play_engine(story, providers=1, timings=Timings(demand_lifetime=90))


def test_a_demand_that_is_never_known_is_not_published_in_a_flood(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.fail("demand_events", NotFound, times=10_000)
        await lab.market()
        await asyncio.sleep(600)
        assert lab.world.calls.count("subscribe") < 60

    # The node still has every demand that it says it does not know.
    play_engine(story, leftovers={"open_demands"})


@pytest.mark.parametrize("kind", [NodeFailure, NodeUnavailable])
def test_an_answer_to_an_offer_is_repeated_while_the_node_fails(play_engine: Any, kind: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.fail("counter_proposal", kind, times=3)
        assert await take_all(lab, await lab.market(), 1) == ["devnet-1"]

    play_engine(story, providers=1)


def test_an_answer_whose_receipt_was_lost_still_brings_the_draft(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.cut("counter_proposal")
        assert await take_all(lab, await lab.market(), 1) == ["devnet-1"]

    play_engine(story, providers=1)


@pytest.mark.parametrize("kind", [BadRequest, Gone, NotFound])
def test_an_offer_that_cannot_be_answered_is_skipped_and_reported(play_engine: Any, kind: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.fail("counter_proposal", kind)
        assert await take_all(lab, await lab.market(), 1) == ["devnet-2"]
        await asyncio.sleep(0)
        assert [refused.by for refused in lab.heard(ProposalRejected)] == ["node"]

    play_engine(story, providers=2)


def test_negotiation_goes_on_after_an_outage(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.fail("demand_events", NodeUnavailable, times=5)
        assert await take_all(lab, await lab.market(), 3) == ["devnet-1", "devnet-2", "devnet-3"]

    play_engine(story)


def test_a_demand_that_the_node_refuses_is_an_error_at_once(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.fail("subscribe", BadRequest)
        with pytest.raises(BadRequest):
            await lab.market()

    play_engine(story)


def test_an_image_that_nobody_knows_is_an_error_before_anything_is_published(play_engine: Any) -> None:
    class Registry:
        async def find(self, **_names: str | None) -> tuple[str, str]:
            raise ConfigError("no such image")

    async def story(lab: Any) -> None:
        lab.engine._registry = Registry()
        with pytest.raises(ConfigError, match="no such image"):
            await lab.market()
        assert "subscribe" not in lab.world.calls

    play_engine(story)


# --- the end


def test_closing_withdraws_the_demand_once(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        await market.close()
        await market.close()
        await asyncio.sleep(0)
        assert lab.world.calls.count("unsubscribe") == 1
        assert len(lab.heard(DemandWithdrawn)) == 1

    play_engine(story)


@pytest.mark.parametrize("kind", [NodeFailure, NodeUnavailable])
def test_a_withdrawal_that_fails_is_repeated(play_engine: Any, kind: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        lab.world.link.fail("unsubscribe", kind, times=3)
        await market.close()

    play_engine(story)


def test_a_withdrawal_is_made_up_for_when_the_node_is_back(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        lab.world.link.up = False
        began = now()
        await market.close()
        assert now() - began <= MarketPace().withdraw
        lab.world.link.up = True
        await asyncio.sleep(30)
        assert lab.world.node.audit().open_demands == ()

    play_engine(story)


def test_a_demand_that_was_published_while_nobody_wanted_it_any_more_is_withdrawn(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.delay("subscribe", 2.0, answer=True)
        opening = asyncio.create_task(lab.market())
        await asyncio.sleep(1)
        opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled()

    play_engine(story)


def test_a_new_demand_brings_offers_that_came_to_nothing_before(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.fail("counter_proposal", BadRequest)
        market = await lab.market()
        with pytest.raises(NoOffers):
            await market.take(within=100)
        await market.renew()
        assert await take_all(lab, market, 1) == ["devnet-1"]

    play_engine(story, providers=1)


def test_a_young_demand_is_not_renewed(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        market = await lab.market()
        await asyncio.gather(*(market.renew() for _ in range(5)))
        assert "unsubscribe" not in lab.world.calls
        await asyncio.sleep(100)
        await asyncio.gather(*(market.renew() for _ in range(5)))
        await asyncio.sleep(5)
        assert lab.world.calls.count("unsubscribe") == 1
        assert lab.world.calls.count("subscribe") == 2

    play_engine(story)


def test_a_slow_node_does_not_hold_up_the_other_offers(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.delay("counter_proposal", 8.0, times=1)
        market = await lab.market()
        assert await take_all(lab, market, 2) == ["devnet-2", "devnet-3"]
        assert now() < 2
        assert await take_all(lab, market, 1) == ["devnet-1"]

    play_engine(story)


def test_with_a_latency_on_every_call_the_market_still_works(play_engine: Any) -> None:
    async def story(lab: Any) -> None:
        lab.world.link.delay(ANY, 0.5)
        lab.world.link.delay(ANY, 0.5, answer=True)
        assert sorted(await take_all(lab, await lab.market(), 3)) == ["devnet-1", "devnet-2", "devnet-3"]

    play_engine(story)
