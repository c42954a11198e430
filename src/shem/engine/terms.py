"""What an offer costs: linear pricing, as offers publish it (contract 4.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from shem import props

#: The node rounds amounts to so many decimals.
PRECISION = Decimal("1e-18")


class UnusableTerms(ValueError):
    """An offer whose price shem cannot read; the text says why."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Prices of one offer, in GLM.

    `prices` are per unit of each of `counters` (seconds, mostly), in the same order; `start` is charged once
    per activity.
    """

    counters: tuple[str, ...]
    prices: tuple[Decimal, ...]
    start: Decimal

    @classmethod
    def of_offer(cls, properties: Mapping[str, Any]) -> Terms:
        """Read an offer's prices. Raises `UnusableTerms`."""
        if (model := properties.get(props.PRICING_MODEL)) != "linear":
            raise UnusableTerms(f"pricing model {model!r} is not linear")
        coefficients = properties.get(props.LINEAR_COEFFS)
        counters = properties.get(props.USAGE_VECTOR)
        if not isinstance(coefficients, list) or not isinstance(counters, list):
            raise UnusableTerms("prices or usage counters are missing")
        if len(coefficients) != len(counters) + 1:
            raise UnusableTerms(
                f"{len(coefficients)} prices for {len(counters)} usage counters and the start"
            )
        if not all(isinstance(c, int | float) and not isinstance(c, bool) and c >= 0 for c in coefficients):
            raise UnusableTerms(f"prices {coefficients!r} are not all numbers of 0 or more")
        prices = [Decimal(str(coefficient)) for coefficient in coefficients]
        return cls(tuple(str(counter) for counter in counters), tuple(prices[:-1]), prices[-1])

    def cost(self, usage: Sequence[float]) -> Decimal:
        """What an activity costs with this usage, in the order of `counters`."""
        used = sum(
            (price * Decimal(str(amount)) for price, amount in zip(self.prices, usage, strict=False)),
            Decimal(0),
        )
        return (self.start + used).quantize(PRECISION)

    def price_of(self, counter: str) -> Decimal:
        """Price per unit of a counter; 0 where the offer does not charge for it."""
        return dict(zip(self.counters, self.prices, strict=True)).get(counter, Decimal(0))

    def expected(self, seconds: float) -> Decimal:
        """What it would cost to run for a time with one busy CPU thread."""
        usage = [
            seconds if counter in (props.DURATION_SEC, props.CPU_SEC) else 0 for counter in self.counters
        ]
        return self.cost(usage)
