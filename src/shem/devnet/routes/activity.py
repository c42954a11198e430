"""The activity API over HTTP (contract 3.4), with results by polling and as server-sent events."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from aiohttp import web

from shem.devnet import commands
from shem.devnet.activities import ROOT
from shem.devnet.batches import Batch, RuntimeEvent
from shem.devnet.node import Node
from shem.devnet.refusals import bad_request
from shem.devnet.routes import reading
from shem.devnet.routes.writing import answer, complete
from shem.ids import ActivityId, AgreementId, BatchId

#: Seconds between signs of life on an idle event stream.
PING_INTERVAL: Final = 15.0
#: Seconds for which a stream stays open after its last event; closing at once looks like a failure to clients
#: that have not read it yet.
LINGER: Final = 3.0


class NewActivity(msgspec.Struct, rename="camel"):
    """Body of ``POST /activity`` in its newer form."""

    agreement_id: str


class ExeScript(msgspec.Struct):
    """Body of ``POST /activity/{id}/exec``."""

    text: str


class ActivityRoutes:
    """Activities, their scripts and results."""

    def __init__(self, node: Node) -> None:
        self._activities = node.activities

    def routes(self) -> list[web.RouteDef]:
        """The routes."""
        activity = f"{ROOT}/activity/{{activity}}"
        return [
            web.post(f"{ROOT}/activity", self._create),
            web.get(f"{ROOT}/activity", self._ids),
            web.delete(activity, self._destroy),
            web.post(f"{activity}/exec", self._execute),
            web.get(f"{activity}/exec/{{batch}}", self._results),
            web.get(f"{activity}/state", self._state),
            web.get(f"{activity}/usage", self._usage),
            web.get(f"{activity}/agreement", self._agreement),
            web.get(f"{activity}/command", self._running),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        wanted: Any = await reading.body(request, NewActivity | str)  # type: ignore[arg-type]  # a union is no type
        old_form = isinstance(wanted, str)
        agreement_id = AgreementId(wanted if old_form else wanted.agreement_id)
        activity_id = await self._activities.create(
            reading.who(request), agreement_id, timeout=reading.timeout(request)
        )
        return answer(activity_id if old_form else {"activityId": activity_id})

    async def _ids(self, request: web.Request) -> web.Response:
        agreement_id = reading.text(request, "agreementId")
        return answer(
            self._activities.ids(
                reading.who(request), None if agreement_id is None else AgreementId(agreement_id)
            )
        )

    async def _destroy(self, request: web.Request) -> web.Response:
        await self._activities.destroy(
            reading.who(request), _activity(request), timeout=reading.timeout(request)
        )
        return answer(None)

    async def _execute(self, request: web.Request) -> web.Response:
        script = await reading.body(request, ExeScript)
        try:
            sent = commands.decode(script.text)
        except commands.BadScript as error:
            raise bad_request(reading.call_of(request), str(error)) from error
        return answer(
            await self._activities.execute(
                reading.who(request), _activity(request), sent, timeout=reading.timeout(request)
            )
        )

    async def _results(self, request: web.Request) -> web.StreamResponse:
        owner, activity_id, batch_id = reading.who(request), _activity(request), _batch(request)
        # Only here, and only exactly this: one client sends it along with all its calls.
        if request.headers.get("Accept") == "text/event-stream":
            return await _stream(request, self._activities.batch(owner, activity_id, batch_id))
        index, timeout = reading.integer(request, "commandIndex"), reading.timeout(request)
        if index is not None:
            one = await self._activities.result(owner, activity_id, batch_id, index, timeout=timeout)
            return answer([complete(one)])
        outcomes = await self._activities.results(owner, activity_id, batch_id, timeout=timeout)
        return answer([complete(outcome) for outcome in outcomes])

    async def _state(self, request: web.Request) -> web.Response:
        return answer(complete(self._activities.state(reading.who(request), _activity(request))))

    async def _usage(self, request: web.Request) -> web.Response:
        return answer(self._activities.usage(reading.who(request), _activity(request)))

    async def _agreement(self, request: web.Request) -> web.Response:
        return answer(self._activities.agreement_of(reading.who(request), _activity(request)))

    async def _running(self, request: web.Request) -> web.Response:
        return answer(self._activities.running_commands(reading.who(request), _activity(request)))


async def _stream(request: web.Request, batch: Batch) -> web.StreamResponse:
    """All events of a batch, from the first on; ends a little after the last."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    told = 0

    def more_to_tell() -> bool:
        return batch.finished or told < len(batch.events)

    while True:
        while told < len(batch.events):
            await response.write(_as_text(batch, told, batch.events[told]))
            told += 1
        if batch.finished:
            break
        if not await batch.bell.until(more_to_tell, PING_INTERVAL):
            await response.write(b":ping\n\n")
    await asyncio.sleep(LINGER)
    return response


def _as_text(batch: Batch, number: int, event: RuntimeEvent) -> bytes:
    data = msgspec.json.encode(
        {
            "batch_id": batch.id,
            "index": event.index,
            "timestamp": event.timestamp.replace(tzinfo=None).isoformat(timespec="microseconds"),
            "kind": event.kind,
        }
    )
    return b"event: runtime\ndata: %b\nid: %d\n\n" % (data, number)


def _activity(request: web.Request) -> ActivityId:
    return ActivityId(request.match_info["activity"])


def _batch(request: web.Request) -> BatchId:
    return BatchId(request.match_info["batch"])
