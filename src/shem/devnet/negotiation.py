"""A built-in provider's rules of negotiation: pure functions of the offer, the demand and the time.

Source: contract 4.6, the rules of ya-provider 0.17.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shem import props

#: How far ahead the end of the work may lie, in seconds.
SOONEST_END = 5 * 60.0
LATEST_END = 100 * 365 * 86_400.0
#: Without a debit note accept time-out the work may take this long at most.
LATEST_END_WITHOUT_ACCEPT_TIMEOUT = 30 * 60.0
#: Work that ends later than this needs a payment time-out.
LATEST_END_WITHOUT_PAYMENT_TIMEOUT = 10 * 3600.0
SHORTEST_ACCEPT_TIMEOUT = 5.0
SHORTEST_INTERVAL, LONGEST_INTERVAL = 1.0, 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider does not want this demand. `final`: nor will it, whatever changes on its side."""

    message: str
    final: bool = True


def negotiate(offer: Mapping[str, Any], demand: Mapping[str, Any], now: datetime) -> dict[str, Any] | Refused:
    """The offer that the provider answers a demand with: the published one, adapted where that is allowed."""
    platform = demand.get(props.CHOSEN_PLATFORM)
    if platform is None:
        return Refused(f"no {props.CHOSEN_PLATFORM} was chosen", final=False)
    if f"golem.com.payment.platform.{platform}.address" not in offer:
        return Refused(f"cannot be paid on {platform!r}", final=False)
    ahead = seconds_until(demand.get(props.EXPIRATION), now)
    if ahead is None:
        return Refused(f"{props.EXPIRATION} is missing or no number of milliseconds")
    if not SOONEST_END <= ahead <= LATEST_END:
        return Refused(f"{props.EXPIRATION} is {ahead:.0f} s ahead, should be 5 minutes to 100 years")
    return _adapt(dict(offer), demand, ahead)


def seconds_until(expiration: object, now: datetime) -> float | None:
    """How far ahead a time in milliseconds since 1970 is, or None where it is no number."""
    value = _number(expiration)
    return None if value is None else value / 1000 - now.timestamp()


def _adapt(offer: dict[str, Any], demand: Mapping[str, Any], ahead: float) -> dict[str, Any] | Refused:
    accept = demand.get(props.DEBIT_NOTE_ACCEPT_TIMEOUT)
    if accept is None and ahead > LATEST_END_WITHOUT_ACCEPT_TIMEOUT:
        return Refused(f"{props.DEBIT_NOTE_ACCEPT_TIMEOUT} is required for work of more than 30 minutes")
    if demand.get(props.PAYMENT_TIMEOUT) is None and ahead > LATEST_END_WITHOUT_PAYMENT_TIMEOUT:
        return Refused(f"{props.PAYMENT_TIMEOUT} is required for work of more than 10 hours")
    limits = (
        (
            props.DEBIT_NOTE_ACCEPT_TIMEOUT,
            SHORTEST_ACCEPT_TIMEOUT,
            _number(offer.get(props.DEBIT_NOTE_ACCEPT_TIMEOUT)),
        ),
        (props.DEBIT_NOTE_INTERVAL, SHORTEST_INTERVAL, LONGEST_INTERVAL),
        (props.PAYMENT_TIMEOUT, SHORTEST_INTERVAL, LONGEST_INTERVAL),
    )
    for key, least, most in limits:
        if key not in offer:
            continue
        asked = demand.get(key)
        if asked is None:
            del offer[key]
            continue
        value = _number(asked)
        if value is None or most is None or not least <= value <= most:
            return Refused(f"{key} is {asked!r}, should be a number from {least:g} to {most}")
        offer[key] = asked
    return offer


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 else None
