"""The payment API over HTTP (contract 3.2)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from aiohttp import web

from shem.config import MAINNETS
from shem.devnet.allocations import ROOT
from shem.devnet.documents import REQUESTOR_KINDS
from shem.devnet.node import Node
from shem.devnet.refusals import bad_request
from shem.devnet.routes import reading
from shem.devnet.routes.writing import answer, money
from shem.devnet.settings import PLATFORMS
from shem.ids import AllocationId, DebitNoteId, InvoiceId
from shem.yagna import models as wire


class PlatformParts(msgspec.Struct):
    """A payment platform in its three parts; what is left out is the node's default."""

    driver: str = "erc20"
    network: str = "holesky"
    token: str | None = None

    @property
    def name(self) -> str:
        """The platform in one string."""
        token = self.token or ("glm" if self.network in MAINNETS else "tglm")
        return f"{self.driver}-{self.network}-{token}".lower()


class AllocationBody(msgspec.Struct, rename="camel"):
    """Body of ``POST /allocations``."""

    total_amount: Decimal
    address: str | None = None
    payment_platform: str | PlatformParts | None = None
    timeout: datetime | None = None
    make_deposit: bool | None = None


class PaymentRoutes:
    """Allocations, debit notes and invoices."""

    def __init__(self, node: Node) -> None:
        self._allocations, self._documents = node.allocations, node.documents

    def routes(self) -> list[web.RouteDef]:
        """The routes."""
        allocation = f"{ROOT}/allocations/{{allocation}}"
        note, invoice = f"{ROOT}/debitNotes/{{note}}", f"{ROOT}/invoices/{{invoice}}"
        return [
            web.post(f"{ROOT}/allocations", self._create),
            web.get(f"{ROOT}/allocations", self._list),
            web.get(allocation, self._allocation),
            web.put(allocation, self._change),
            web.delete(allocation, self._release),
            web.get(f"{ROOT}/demandDecorations", self._decorations),
            web.get(f"{ROOT}/requestorAccounts", self._requestor_accounts),
            web.get(f"{ROOT}/providerAccounts", self._provider_accounts),
            web.get(f"{ROOT}/debitNoteEvents", self._note_events),
            web.get(f"{ROOT}/invoiceEvents", self._invoice_events),
            web.get(f"{ROOT}/debitNotes", self._notes),
            web.get(note, self._note),
            web.post(f"{note}/accept", self._accept_note),
            web.post(f"{note}/reject", self._reject_note),
            web.get(f"{ROOT}/invoices", self._invoices),
            web.get(invoice, self._invoice),
            web.post(f"{invoice}/accept", self._accept_invoice),
            web.post(f"{invoice}/reject", self._reject_invoice),
        ]

    # --- allocations ----------------------------------------------------------------------------------

    async def _create(self, request: web.Request) -> web.Response:
        wanted = await reading.body(request, AllocationBody)
        platform = wanted.payment_platform or PlatformParts()
        allocation = self._allocations.create(
            reading.who(request),
            wire.NewAllocation(
                address=wanted.address or reading.who(request),
                payment_platform=platform if isinstance(platform, str) else platform.name,
                total_amount=wanted.total_amount,
                timeout=_in_utc(request, wanted.timeout),
                make_deposit=bool(wanted.make_deposit),
            ),
        )
        return answer(money(allocation), 201)

    async def _list(self, request: web.Request) -> web.Response:
        return answer(_page(request, self._allocations.allocations(reading.who(request))))

    async def _allocation(self, request: web.Request) -> web.Response:
        return answer(money(self._allocations.allocation(reading.who(request), _allocation(request))))

    async def _change(self, request: web.Request) -> web.Response:
        change = await reading.body(request, wire.AllocationChange)
        change = wire.AllocationChange(
            total_amount=change.total_amount, timeout=_in_utc(request, change.timeout)
        )
        return answer(money(self._allocations.change(reading.who(request), _allocation(request), change)))

    async def _release(self, request: web.Request) -> web.Response:
        self._allocations.release(reading.who(request), _allocation(request))
        return answer(None)

    async def _decorations(self, request: web.Request) -> web.Response:
        ids = [AllocationId(item) for item in reading.texts(request, "allocationIds")]
        return answer(self._allocations.decorations(reading.who(request), ids))

    async def _requestor_accounts(self, request: web.Request) -> web.Response:
        return answer(_accounts(reading.who(request), send=True))

    async def _provider_accounts(self, request: web.Request) -> web.Response:
        return answer(_accounts(reading.who(request), send=False))

    # --- debit notes ----------------------------------------------------------------------------------

    async def _note_events(self, request: web.Request) -> web.Response:
        events = await self._documents.note_events(
            reading.who(request),
            after=reading.moment(request, "afterTimestamp"),
            timeout=reading.timeout(request),
            session=reading.text(request, "appSessionId"),
            max_events=reading.max_events(request),
            kinds=_kinds(request),
        )
        return answer(events)

    async def _notes(self, request: web.Request) -> web.Response:
        return answer(_page(request, self._documents.notes(reading.who(request))))

    async def _note(self, request: web.Request) -> web.Response:
        return answer(money(self._documents.note(reading.who(request), _note(request))))

    async def _accept_note(self, request: web.Request) -> web.Response:
        acceptance = await reading.body(request, wire.Acceptance)
        self._documents.accept_note(reading.who(request), _note(request), acceptance)
        return answer(None)

    async def _reject_note(self, request: web.Request) -> web.Response:
        raise bad_request(
            reading.call_of(request), "rejecting debit notes is not implemented by yagna", status=501
        )

    # --- invoices -------------------------------------------------------------------------------------

    async def _invoice_events(self, request: web.Request) -> web.Response:
        events = await self._documents.invoice_events(
            reading.who(request),
            after=reading.moment(request, "afterTimestamp"),
            timeout=reading.timeout(request),
            session=reading.text(request, "appSessionId"),
            max_events=reading.max_events(request),
            kinds=_kinds(request),
        )
        return answer(events)

    async def _invoices(self, request: web.Request) -> web.Response:
        return answer(_page(request, self._documents.invoices(reading.who(request))))

    async def _invoice(self, request: web.Request) -> web.Response:
        return answer(money(self._documents.invoice(reading.who(request), _invoice(request))))

    async def _accept_invoice(self, request: web.Request) -> web.Response:
        acceptance = await reading.body(request, wire.Acceptance)
        self._documents.accept_invoice(reading.who(request), _invoice(request), acceptance)
        return answer(None)

    async def _reject_invoice(self, request: web.Request) -> web.Response:
        await reading.body(request, dict[str, Any])
        self._documents.reject_invoice(reading.who(request), _invoice(request))
        return answer(None)


def _allocation(request: web.Request) -> AllocationId:
    return AllocationId(request.match_info["allocation"])


def _note(request: web.Request) -> DebitNoteId:
    return DebitNoteId(request.match_info["note"])


def _invoice(request: web.Request) -> InvoiceId:
    return InvoiceId(request.match_info["invoice"])


def _in_utc(request: web.Request, time: datetime | None) -> datetime | None:
    try:
        return None if time is None else reading.in_utc(time)
    except OverflowError:
        raise bad_request(reading.call_of(request), "timeout is beyond the calendar") from None


def _kinds(request: web.Request) -> frozenset[str]:
    """The kinds of events that the caller asks for, in its role as requestor."""
    given = request.headers.get("X-Requestor-Events")
    if given is None:
        return REQUESTOR_KINDS
    return frozenset(kind.strip().upper() for kind in given.split(","))


def _page(
    request: web.Request, values: Iterable[wire.Allocation | wire.DebitNote | wire.Invoice]
) -> list[Any]:
    """The part of a list that the query asks for."""
    after, most = reading.moment(request, "afterTimestamp"), reading.integer(request, "maxItems")
    chosen = [money(value) for value in values if after is None or value.timestamp > after]
    return chosen if most is None else chosen[: max(most, 0)]


def _accounts(address: str, *, send: bool) -> list[dict[str, Any]]:
    accounts = []
    for platform in PLATFORMS:
        driver, network, token = platform.split("-")
        accounts.append(
            {
                "platform": platform,
                "address": address,
                "driver": driver,
                "network": network,
                "token": token.replace("glm", "GLM"),
                "send": send,
                "receive": not send,
            }
        )
    return accounts
