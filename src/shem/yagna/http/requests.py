"""How arguments look on the wire: paths, queries, times, JSON bodies. Pure functions.

Times are RFC 3339 in UTC with a ``Z``, amounts plain decimal strings without an exponent (contract 1.2).
What has no form on the wire is refused with a `ConfigError` here, before anything is sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from shem.errors import ConfigError

MARKET = "/market-api/v1"
PAYMENT = "/payment-api/v1"
ACTIVITY = "/activity-api/v1"
GSB = "/gsb-api/v1"


def path(root: str, *segments: str) -> str:
    """`root` and the segments, each quoted: ids are opaque and may hold anything."""
    return "".join((root, *(f"/{quote(segment, safe='')}" for segment in segments)))


def query(parameters: Mapping[str, str]) -> str:
    """Query part of a URL, with its question mark; empty without parameters."""
    return "?" + urlencode(parameters, quote_via=quote) if parameters else ""


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, to the microsecond. Raises `ConfigError` on a time that names no zone."""
    if moment.tzinfo is None:
        raise ConfigError(
            f"time {moment.isoformat()} names no zone; use an aware one, such as Clock.now() gives"
        )
    try:
        return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
    except OverflowError:
        raise ConfigError(f"time {moment.isoformat()} has no form in UTC") from None


def seconds(duration: float) -> str:
    """A time limit for the node, in seconds with at most three places; negative ones mean: answer now."""
    if not math.isfinite(duration):
        raise ConfigError(f"a time limit of {duration} s has no form on the wire; give a finite one")
    return f"{max(0.0, duration):.3f}".rstrip("0").rstrip(".")


def body(value: object) -> bytes:
    """`value` as JSON. Raises `ConfigError` where it holds something that JSON has no form for."""
    try:
        return msgspec.json.encode(_plain(msgspec.to_builtins(value, builtin_types=(Decimal, datetime))))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"cannot be sent to the node as JSON: {error}") from error


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case datetime():
            return timestamp(value)
        case Decimal() if value.is_finite():
            return format(value, "f")
        case Decimal() | float() if not math.isfinite(value):
            # JSON has no form for them, and the encoder would quietly turn them into null.
            raise ConfigError(f"the number {value} cannot be sent to the node")
    return value
