"""Property maps of demands and offers: making them flat, and reading their values.

A value is there if it is a string, a number, a bool or a list of these; `null` and everything else makes the
property as good as missing. The readings turn text into something that can be compared, or into None where
the text is not of that kind; they never raise. What a constraint asks of a value stands in `constraints`.

Source: contract 4.1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

#: A semantic version as a key: major, minor, patch, pre-release. Build metadata has no rank.
Version: TypeAlias = tuple[int, int, int, tuple[Any, ...]]

#: A moment as a key: UTC to the second, and the digits of the fraction without trailing zeros.
Moment: TypeAlias = tuple[datetime, str]

#: Where a nested object also has a value of its own, the node writes that value under this key.
OWN_VALUE = "@tag"

_FINITE = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_DECIMAL = re.compile(_FINITE)
_NUMBER = re.compile(rf"{_FINITE}|[+-]?(?:inf|infinity|nan)", re.IGNORECASE)
_NATURAL = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER = rf"(?:{_NATURAL}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(
    rf"({_NATURAL})\.({_NATURAL})\.({_NATURAL})(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_MOMENT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


def flatten(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Nested objects as one flat map from dotted names to values.

    ``{"golem": {"inf": {"mem.gib": 8}}}`` becomes ``{"golem.inf.mem.gib": 8}``. Names that are dotted already
    stay as they are, lists are values, empty objects vanish, and of two entries with the same name the later
    one holds. An object's entry ``@tag`` is the value of the object's own name, as the node writes properties
    such as ``golem.com.pricing.model``, which have a value as well as names below them.
    """
    flat: dict[str, Any] = {}
    # A stack instead of recursion: how deep a request's body is nested is the sender's choice.
    levels: list[tuple[str, Iterator[tuple[str, Any]]]] = [("", iter(properties.items()))]
    while levels:
        prefix, entries = levels[-1]
        for key, value in entries:
            name = prefix if prefix and key == OWN_VALUE else f"{prefix}.{key}" if prefix else key
            if isinstance(value, Mapping):
                levels.append((name, iter(value.items())))
                break
            flat[name] = value
        else:
            levels.pop()
    return flat


def is_there(value: Any) -> bool:
    """Whether a property with this value counts as present."""
    if isinstance(value, (str, int, float)):
        return True
    return isinstance(value, (list, tuple)) and all(isinstance(item, (str, int, float)) for item in value)


def to_float(value: int | float) -> float:
    """A JSON number as the market compares it, in double precision. What is too large becomes infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def read_number(text: str) -> float | None:
    """A number in double precision, such as ``4``, ``.5``, ``-1e3`` or ``inf``; no blanks, no underscores."""
    return float(text) if _NUMBER.fullmatch(text) else None


def read_decimal(text: str) -> Decimal | None:
    """An exact decimal number (``$d``). Infinities and NaN are none."""
    if not _DECIMAL.fullmatch(text):
        return None
    try:
        return Decimal(text)
    except ArithmeticError:  # the exponent is beyond what `decimal` can hold
        return None


def read_version(text: str) -> Version | None:
    """A semantic version (``$v``), ordered by the precedence rules of semver.org."""
    found = _VERSION.fullmatch(text)
    if found is None:
        return None
    major, minor, patch, pre_release = found.groups()
    try:
        # A release follows all its pre-releases; numeric identifiers come before the others.
        rank = (
            (1,)
            if pre_release is None
            else (
                0,
                *((0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre_release.split(".")),
            )
        )
        return int(major), int(minor), int(patch), rank
    except ValueError:  # more digits than Python turns into an int
        return None


def read_moment(text: str) -> Moment | None:
    """A date and time of RFC 3339 (``$t``), with any number of digits in the fraction of its seconds."""
    found = _MOMENT.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, offset_hours, offset_minutes = found.groups()
    if int(second) > 60 or int(offset_hours or 0) > 23 or int(offset_minutes or 0) > 59:
        return None
    offset = timedelta(hours=int(offset_hours or 0), minutes=int(offset_minutes or 0))
    try:
        # Seconds are added, because a leap second is legal here and not in `datetime`.
        local = datetime(int(year), int(month), int(day), int(hour), int(minute)) + timedelta(
            seconds=int(second)
        )
        utc = local + offset if sign == "-" else local - offset
    except (ValueError, OverflowError):  # no such day, or beyond the calendar
        return None
    return utc, (fraction or "").rstrip("0")
