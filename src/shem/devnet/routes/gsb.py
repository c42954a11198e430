"""The service bus over HTTP: services, and the web socket over which a requestor answers (contract 3.6)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from shem.devnet.gsb import ROOT, Disconnected
from shem.devnet.node import Node
from shem.devnet.routes import reading
from shem.devnet.routes.writing import answer
from shem.errors import TransferError
from shem.log import get_logger
from shem.yagna.frames import SUBPROTOCOL, decode, encode

_log = get_logger("devnet")
_ROOMY: Final = 64 * 1024 * 1024
#: Seconds to wait for the other side's part of a closing handshake.
_CLOSE_TIMEOUT: Final = 1.0


class Listen(msgspec.Struct):
    """What a service is called and which calls it answers."""

    on: str
    components: list[str] = []


class NewService(msgspec.Struct):
    """Body of ``POST /services``."""

    listen: Listen


class GsbRoutes:
    """Services and their sockets."""

    def __init__(self, node: Node) -> None:
        self._gsb, self._clock = node.gsb, node.clock

    def routes(self) -> list[web.RouteDef]:
        """The routes."""
        service = f"{ROOT}/services/{{service}}"
        return [
            web.post(f"{ROOT}/services", self._bind),
            web.get(service, self._connect),
            web.delete(service, self._unbind),
        ]

    async def _bind(self, request: web.Request) -> web.Response:
        wanted = (await reading.body(request, NewService)).listen
        service = self._gsb.bind(reading.who(request), wanted.on, wanted.components)
        response = answer(
            {
                "listen": {"on": service.address, "components": list(service.components), "links": None},
                "servicesId": service.id,
            },
            201,
        )
        response.headers["Location"] = f"/{service.id}"
        return response

    async def _unbind(self, request: web.Request) -> web.Response:
        await self._gsb.unbind(reading.who(request), request.match_info["service"])
        return answer(None)

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        service = self._gsb.service(
            reading.call_of(request), reading.who(request), request.match_info["service"]
        )
        socket = web.WebSocketResponse(protocols=(SUBPROTOCOL,), max_msg_size=_ROOMY, timeout=_CLOSE_TIMEOUT)
        await socket.prepare(request)
        responder = SocketResponder(socket)
        await service.connect(responder)
        try:
            await responder.listen()
        finally:
            service.disconnect(responder)
        return socket


class SocketResponder:
    """A requestor at the other end of a web socket."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._pending: dict[str, asyncio.Future[Any]] = {}
        self._count = 0

    async def answer(self, component: str, payload: Mapping[str, Any]) -> Any:
        """Send a call and wait for its answer. Raises `Disconnected`, `TransferError`."""
        self._count += 1
        identifier = str(self._count)
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[identifier] = waiting
        try:
            await self._socket.send_bytes(
                encode({"id": identifier, "component": component, "payload": payload})
            )
            return await waiting
        except ConnectionError as error:
            raise Disconnected from error
        finally:
            del self._pending[identifier]

    async def listen(self) -> None:
        """Take answers until the socket is closed."""
        try:
            async for message in self._socket:
                if message.type is WSMsgType.BINARY:
                    self._take(message.data)
        finally:
            for waiting in self._pending.values():
                if not waiting.done():
                    waiting.set_exception(Disconnected())

    async def close(self, reason: str, *, replaced: bool) -> None:
        """Close the socket: with code 1008 where another one took its place, else with 1000."""
        code = WSCloseCode.POLICY_VIOLATION if replaced else WSCloseCode.OK
        # The reason of a closing frame has room for 123 bytes.
        await self._socket.close(code=code, message=reason.encode()[:123])

    def _take(self, frame: bytes) -> None:
        try:
            reply = decode(frame)
        except TransferError as error:
            _log.warning("gsb_frame_refused", error=str(error))
            return
        waiting = self._pending.get(str(reply.get("id")))
        if waiting is None or waiting.done():
            return
        refused = reply.get("error")
        if refused is not None:
            waiting.set_exception(TransferError(f"the requestor answered with an error: {refused}"))
        else:
            waiting.set_result(reply.get("payload"))
