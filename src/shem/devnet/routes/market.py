"""The market API over HTTP (contract 3.3)."""

from __future__ import annotations

from datetime import datetime

import msgspec
from aiohttp import web

from shem.devnet.market import ROOT
from shem.devnet.node import Node
from shem.devnet.refusals import bad_request
from shem.devnet.routes import reading
from shem.devnet.routes.writing import answer, complete, nothing
from shem.ids import AgreementId, DemandId, ProposalId
from shem.yagna import models as wire


class NewAgreement(msgspec.Struct, rename="camel"):
    """Body of ``POST /agreements``."""

    proposal_id: str
    valid_to: datetime


class MarketRoutes:
    """Demands, proposals and agreements."""

    def __init__(self, node: Node) -> None:
        self._market, self._agreements = node.market, node.agreements

    def routes(self) -> list[web.RouteDef]:
        """The routes."""
        demand, agreement = f"{ROOT}/demands/{{demand}}", f"{ROOT}/agreements/{{agreement}}"
        proposal = f"{demand}/proposals/{{proposal}}"
        return [
            web.post(f"{ROOT}/demands", self._subscribe),
            web.get(f"{ROOT}/demands", self._demands),
            web.delete(demand, self._unsubscribe),
            web.get(f"{demand}/events", self._demand_events),
            web.get(proposal, self._proposal),
            web.post(proposal, self._counter),
            web.post(f"{proposal}/reject", self._reject),
            web.post(f"{ROOT}/agreements", self._create),
            web.get(f"{ROOT}/agreements", self._entries),
            web.get(agreement, self._agreement),
            web.post(f"{agreement}/confirm", self._confirm),
            web.post(f"{agreement}/wait", self._wait),
            web.post(f"{agreement}/cancel", self._cancel),
            web.post(f"{agreement}/terminate", self._terminate),
            web.get(f"{agreement}/terminate/reason", self._termination),
            web.get(f"{ROOT}/agreementEvents", self._events),
        ]

    async def _subscribe(self, request: web.Request) -> web.Response:
        spec = await reading.body(request, wire.DemandSpec)
        return answer(self._market.subscribe(reading.who(request), spec), 201)

    async def _demands(self, request: web.Request) -> web.Response:
        return answer(self._market.demands(reading.who(request)))

    async def _unsubscribe(self, request: web.Request) -> web.Response:
        self._market.unsubscribe(reading.who(request), _demand(request))
        return nothing()

    async def _demand_events(self, request: web.Request) -> web.Response:
        wanted = reading.integer(request, "maxEvents")
        events = await self._market.demand_events(
            reading.who(request),
            _demand(request),
            timeout=reading.timeout(request),
            max_events=20 if wanted is None else wanted,
        )
        return answer(events)

    async def _proposal(self, request: web.Request) -> web.Response:
        return answer(self._market.proposal(reading.who(request), _demand(request), _proposal(request)))

    async def _counter(self, request: web.Request) -> web.Response:
        spec = await reading.body(request, wire.DemandSpec)
        return answer(self._market.counter(reading.who(request), _demand(request), _proposal(request), spec))

    async def _reject(self, request: web.Request) -> web.Response:
        await _reason(request)
        self._market.reject(reading.who(request), _demand(request), _proposal(request))
        return nothing()

    async def _create(self, request: web.Request) -> web.Response:
        wanted = await reading.body(request, NewAgreement)
        try:
            valid_to = reading.in_utc(wanted.valid_to)
        except OverflowError:
            raise bad_request(reading.call_of(request), "validTo is beyond the calendar") from None
        return answer(self._agreements.create(reading.who(request), ProposalId(wanted.proposal_id), valid_to))

    async def _entries(self, request: web.Request) -> web.Response:
        entries = self._agreements.entries(
            reading.who(request),
            state=reading.text(request, "state"),
            before=reading.moment(request, "beforeDate"),
            after=reading.moment(request, "afterDate"),
            session=reading.text(request, "appSessionId"),
        )
        return answer([complete(entry) for entry in entries])

    async def _agreement(self, request: web.Request) -> web.Response:
        return answer(self._agreements.agreement(reading.who(request), _agreement(request)))

    async def _confirm(self, request: web.Request) -> web.Response:
        self._agreements.confirm(
            reading.who(request), _agreement(request), reading.text(request, "appSessionId")
        )
        return nothing()

    async def _wait(self, request: web.Request) -> web.Response:
        await self._agreements.wait(
            reading.who(request), _agreement(request), timeout=reading.timeout(request)
        )
        return nothing()

    async def _cancel(self, request: web.Request) -> web.Response:
        reason = await _reason(request)
        self._agreements.cancel(reading.who(request), _agreement(request), reason)
        return web.Response()

    async def _terminate(self, request: web.Request) -> web.Response:
        reason = await _reason(request)
        self._agreements.terminate(reading.who(request), _agreement(request), reason)
        return web.Response()

    async def _termination(self, request: web.Request) -> web.Response:
        return answer(self._agreements.termination(reading.who(request), _agreement(request)))

    async def _events(self, request: web.Request) -> web.Response:
        events = await self._agreements.events(
            reading.who(request),
            after=reading.moment(request, "afterTimestamp"),
            timeout=reading.timeout(request),
            session=reading.text(request, "appSessionId"),
            max_events=reading.max_events(request),
        )
        return answer(events)


def _demand(request: web.Request) -> DemandId:
    return DemandId(request.match_info["demand"])


def _proposal(request: web.Request) -> ProposalId:
    return ProposalId(request.match_info["proposal"])


def _agreement(request: web.Request) -> AgreementId:
    return AgreementId(request.match_info["agreement"])


async def _reason(request: web.Request) -> wire.Reason:
    return await reading.optional_body(request, wire.Reason, wire.Reason())
