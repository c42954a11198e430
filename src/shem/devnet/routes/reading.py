"""Reading requests: bodies and query parameters as values, and a 400 for everything that is none.

Source: contract 1.2, 1.4. Lists come as ``a,b`` and as repeated parameters; a raw ``+`` in a time has become
a blank on its way.
"""

from __future__ import annotations

import math
import zlib
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from shem.devnet.refusals import UnreadableBody, bad_request
from shem.devnet.routes.keyring import KEYRING
from shem.errors import BadRequest
from shem.ids import NodeId
from shem.yagna import models as wire

T = TypeVar("T")

#: How long a call may wait where the caller does not say, and at most, in seconds.
DEFAULT_TIMEOUT: Final = 5.0
LONGEST_TIMEOUT: Final = 60.0


def call_of(request: web.Request) -> str:
    """Method and path, for error messages."""
    return f"{request.method} {request.path}"


def identity(request: web.Request) -> wire.Identity:
    """Whose request it is. Raises `Unauthorized`."""
    return request.app[KEYRING].owner(request)


def who(request: web.Request) -> NodeId:
    """Node id of whose request it is."""
    return identity(request).identity


async def body(request: web.Request, kind: type[T]) -> T:
    """The request's JSON body. Raises `BadRequest`."""
    return _convert(request, await _content(request), kind)


async def optional_body(request: web.Request, kind: type[T], default: T) -> T:
    """The request's JSON body, or `default` where it is empty or null. Raises `BadRequest`."""
    content = await _content(request)
    if content.strip() in (b"", b"null"):
        return default
    return _convert(request, content, kind)


def text(request: web.Request, name: str) -> str | None:
    """A query parameter; None where it is missing or empty."""
    return request.query.get(name) or None


def texts(request: web.Request, name: str) -> list[str]:
    """A list in the query, in either form."""
    return [item for part in request.query.getall(name, []) for item in part.split(",") if item]


def timeout(request: web.Request) -> float:
    """How long the caller wants to wait, in seconds; never longer than the keep-alive."""
    given = text(request, "timeout")
    if given is None:
        return DEFAULT_TIMEOUT
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if math.isnan(value) or value < 0:
        raise _bad_parameter(request, "timeout", given, "a number of seconds from 0 up")
    return min(value, LONGEST_TIMEOUT)


def integer(request: web.Request, name: str) -> int | None:
    """A whole number in the query; None where it is missing."""
    given = text(request, name)
    if given is None:
        return None
    # Longer ones are refused by `int` with another error, and mean nothing.
    if not given.removeprefix("-").isascii() or not given.removeprefix("-").isdigit() or len(given) > 18:
        raise _bad_parameter(request, name, given, "a whole number")
    return int(given)


def max_events(request: web.Request) -> int | None:
    """The `maxEvents` of a poll; None where it is missing."""
    value = integer(request, "maxEvents")
    if value is not None and value < 1:
        raise _bad_parameter(request, "maxEvents", str(value), "1 or more")
    return value


def moment(request: web.Request, name: str) -> datetime | None:
    """A time in the query, in UTC; None where it is missing."""
    given = text(request, name)
    if given is None:
        return None
    repaired = given[:10] + given[10:].replace(" ", "+") if len(given) > 10 and given[10] in "Tt" else given
    try:
        return in_utc(datetime.fromisoformat(repaired))
    except (ValueError, OverflowError):
        raise _bad_parameter(request, name, given, "an RFC 3339 time") from None


def in_utc(time: datetime) -> datetime:
    """The time in UTC; one without a zone is taken as UTC. Raises `OverflowError` at the calendar's ends."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


async def _content(request: web.Request) -> bytes:
    try:
        return await request.read()
    except (web.RequestPayloadError, zlib.error, ValueError) as error:
        raise UnreadableBody(call_of(request), 400, f"the body cannot be read: {error}") from error


def _convert(request: web.Request, content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    # msgspec lets the errors of numbers, of time zones and of too deep a nesting through.
    except (msgspec.DecodeError, RecursionError, ArithmeticError, ValueError) as error:
        raise bad_request(call_of(request), f"Json deserialize error: {error}") from error


def _bad_parameter(request: web.Request, name: str, given: str, wanted: str) -> BadRequest:
    return bad_request(call_of(request), f"Query deserialize error: {name} is {given!r}, expected {wanted}")
