"""Event polls that neither a strange nor a malformed event can blind or set spinning.

The kinds of events grow with the node's versions, so a kind that shem does not know is skipped. An event of
a known kind that does not validate is skipped too, with a warning: the events of agreements and payments are
not consumed, so that a poll which raised for one of them would raise for ever and hide all the others.

Since the node answers at once while such an event is there, a poll that brought nothing else goes on, from
after the skipped event, until its time is up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import UnionType
from typing import Any, Generic, TypeVar, get_args

import msgspec

from shem.log import get_logger
from shem.yagna.http import requests
from shem.yagna.http.answers import Answer, bounded
from shem.yagna.http.transport import Transport
from shem.yagna.models import AgreementEvent, DebitNoteEvent, DemandEvent, InvoiceEvent

T = TypeVar("T")

#: Pause before polling again where nothing tells how to get past a skipped event, in seconds.
SKIP_PAUSE = 1.0
#: How many malformed events are remembered, so that each is reported once and not with every poll.
REPORTED = 64

log = get_logger("yagna.http")


class _Head(msgspec.Struct, rename="camel"):
    """What even an event of an unknown kind has."""

    event_type: str = ""


class _Date(msgspec.Struct, rename="camel"):
    event_date: datetime


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Events of one answer, and whether and up to when some were skipped."""

    events: list[T]
    skipped: bool
    latest_skipped: datetime | None


class Feed(Generic[T]):
    """One stream of events: where it is and how its events look.

    Args:
        kind: the events' type; for a union of tagged structs, other tags are skipped.
    """

    def __init__(self, transport: Transport, kind: Any) -> None:
        self._transport = transport
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind)
        self._known = _tags_of(kind)
        self._reported: deque[bytes] = deque(maxlen=REPORTED)

    async def poll(
        self,
        path: str,
        query: Mapping[str, str],
        *,
        timeout: float,
        after: datetime | None = None,
    ) -> list[T]:
        """Events later than `after`, or next ones; waits up to `timeout` seconds for the first."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        remaining = timeout
        while True:
            since = {} if after is None else {"afterTimestamp": requests.timestamp(after)}
            answer = await self._transport.call("GET", path, query={**query, **since}, wait=remaining)
            batch = self.read(answer)
            remaining = deadline - loop.time()
            if batch.events or not batch.skipped or remaining <= 0:
                return batch.events
            if after is not None and batch.latest_skipped is not None and batch.latest_skipped > after:
                after = batch.latest_skipped
            else:
                await self._transport.pause(min(SKIP_PAUSE, remaining))
                remaining = deadline - loop.time()

    def read(self, answer: Answer) -> Batch[T]:
        """The events in an answer. Raises `NodeAnswerError` where it is no list."""
        events: list[T] = []
        skipped: list[msgspec.Raw] = []
        for index, element in enumerate(answer.elements()):
            try:
                events.append(self._decoder.decode(element))
            except (ValueError, RecursionError) as error:
                skipped.append(element)
                self._report(answer.call, index, bytes(element), error)
        dates = [date for element in skipped if (date := _date_of(element)) is not None]
        return Batch(events, bool(skipped), max(dates, default=None))

    def _report(self, call: str, index: int, element: bytes, error: Exception) -> None:
        kind = _kind_of(element)
        if kind and self._known and kind not in self._known:
            log.debug("event_of_unknown_kind_skipped", call=call, kind=bounded(kind))
        elif element not in self._reported:
            self._reported.append(element)
            log.warning(
                "malformed_event_skipped",
                call=call,
                index=index,
                kind=bounded(kind),
                error=bounded(str(error)),
            )


class Feeds:
    """The four streams of events that a requestor reads."""

    def __init__(self, transport: Transport) -> None:
        self.demand: Feed[DemandEvent] = Feed(transport, DemandEvent)
        self.agreement: Feed[AgreementEvent] = Feed(transport, AgreementEvent)
        self.invoice: Feed[InvoiceEvent] = Feed(transport, InvoiceEvent)
        self.debit_note: Feed[DebitNoteEvent] = Feed(transport, DebitNoteEvent)


def _tags_of(kind: Any) -> frozenset[str]:
    members = get_args(kind) if isinstance(kind, UnionType) else ()
    return frozenset(member.__struct_config__.tag for member in members)


def _kind_of(element: bytes) -> str:
    try:
        return msgspec.json.decode(element, type=_Head).event_type
    except (ValueError, RecursionError):
        return ""


def _date_of(element: msgspec.Raw) -> datetime | None:
    try:
        date = msgspec.json.decode(element, type=_Date).event_date
    except (ValueError, RecursionError):
        return None
    return date if date.tzinfo is not None else None
