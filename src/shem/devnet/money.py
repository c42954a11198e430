"""Amounts of GLM, as the node keeps them: 18 decimal places, no exponent, no more than there can be.

Source: contract 1.2, 4.5.
"""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Final

#: The smallest amount there is.
SMALLEST: Final = Decimal(1).scaleb(-18)
#: Ten times all the GLM there is. With 18 places it has the 28 digits in which `decimal` calculates exactly.
LIMIT: Final = Decimal(10) ** 10

_EXACT = Context(prec=60)


def rounded(amount: Decimal) -> Decimal:
    """A finite amount below 10^40, to 18 places, without trailing zeros."""
    places = amount.quantize(SMALLEST, context=_EXACT)
    return Decimal(f"{places.normalize(_EXACT):f}")


def is_amount(value: Decimal) -> bool:
    """Whether a number can be an amount of GLM: finite, not negative, below the limit."""
    return value.is_finite() and 0 <= value < LIMIT
