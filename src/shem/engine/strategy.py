"""Which offers to take, and which of them first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Protocol

from shem import props
from shem.engine.terms import Terms
from shem.ids import NodeId
from shem.yagna.models import Proposal


@dataclass(frozen=True, slots=True)
class Offer:
    """A provider's proposal with its price read."""

    proposal: Proposal
    terms: Terms

    @property
    def provider_id(self) -> NodeId:
        """Node id of the provider."""
        return self.proposal.issuer_id

    @property
    def provider_name(self) -> str:
        """The name the provider gives itself; not unique."""
        return str(self.proposal.properties.get(props.NODE_NAME, ""))


class Strategy(Protocol):
    """Chooses among offers."""

    def objection(self, offer: Offer) -> str | None:
        """Why an offer is not acceptable, or None where it is."""

    def rank(self, offer: Offer) -> Decimal:
        """Acceptable offers with a lower rank are taken first."""


@dataclass(frozen=True, slots=True)
class LeastExpensive:
    """Takes the offer that costs least for a run of `expected_seconds`, within caps.

    Attributes:
        max_start_price: most for starting an activity, in GLM.
        max_prices: most per unit of a usage counter, in GLM (per second, mostly).

    The default caps are the ones users of the network are used to; an offer above them is refused by name,
    never silently.
    """

    expected_seconds: float = 3600.0
    max_start_price: Decimal = Decimal("1.0")
    max_prices: Mapping[str, Decimal] = field(
        default_factory=lambda: MappingProxyType(
            {props.CPU_SEC: Decimal("0.2"), props.DURATION_SEC: Decimal("0.1")}
        )
    )

    def objection(self, offer: Offer) -> str | None:
        """Names the first price above its cap."""
        if offer.terms.start > self.max_start_price:
            return f"start price {offer.terms.start} GLM is above the cap of {self.max_start_price}"
        for counter, cap in self.max_prices.items():
            if (price := offer.terms.price_of(counter)) > cap:
                return f"price of {counter} is {price} GLM, above the cap of {cap}"
        return None

    def rank(self, offer: Offer) -> Decimal:
        """The expected cost."""
        return offer.terms.expected(self.expected_seconds)
