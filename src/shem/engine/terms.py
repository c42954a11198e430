"""What an offer costs: linear pricing, as offers publish it (contract 4.5)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

from shem import props

#: The node rounds amounts to so many decimals.
PRECISION = Decimal("1e-18")
#: More than there is of the token, by far.
HIGHEST_PRICE = 1e15
#: Has room for the product of any two floats, so that no figure a provider sends can break the sums.
_EXACT = Context(prec=1400)


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
        if not all(isinstance(c, int | float) and not isinstance(c, bool) for c in coefficients):
            raise UnusableTerms(f"prices {coefficients!r} are not all numbers")
        if not all(0 <= coefficient <= HIGHEST_PRICE for coefficient in coefficients):
            raise UnusableTerms(f"prices are not all between 0 and {HIGHEST_PRICE:g}: {coefficients!r:.200}")
        prices = [Decimal(str(coefficient)) for coefficient in coefficients]
        return cls(tuple(str(counter) for counter in counters), tuple(prices[:-1]), prices[-1])

    def cost(self, usage: Sequence[float]) -> Decimal:
        """What an activity costs with this usage, in the order of `counters`.

        Usage that is no finite number, or negative, counts as none.
        """
        total = self.start
        for price, amount in zip(self.prices, usage, strict=False):
            if 0 < amount < math.inf:
                total = _EXACT.add(total, _EXACT.multiply(price, Decimal(str(amount))))
        return total.quantize(PRECISION, context=_EXACT)

    def price_of(self, counter: str) -> Decimal:
        """Price per unit of a counter; 0 where the offer does not charge for it."""
        pairs = zip(self.counters, self.prices, strict=True)
        return sum((price for name, price in pairs if name == counter), Decimal(0))

    def expected(self, seconds: float) -> Decimal:
        """What it would cost to run for a time with one busy CPU thread."""
        usage = [
            seconds if counter in (props.DURATION_SEC, props.CPU_SEC) else 0 for counter in self.counters
        ]
        return self.cost(usage)
