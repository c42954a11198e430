"""Open transfers: a name at the node's service bridge, a web socket, and a task that answers what comes in.

What is said over the socket is in `exchange`, its frames in `shem.yagna.frames`.

Source: contract of the GSB API, 3.6.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec

from shem.clock import Clock
from shem.errors import NodeError, NotFound, TransferError
from shem.ids import NodeId
from shem.log import get_logger
from shem.yagna import frames
from shem.yagna.api import Sink, Source
from shem.yagna.exchange import Exchange, Publication, Reception, failure
from shem.yagna.http import requests
from shem.yagna.http.answers import bounded
from shem.yagna.http.transport import Transport
from shem.yagna.models import Identity

#: First and longest pause before a cut socket is made anew, in seconds; each is up to twice the one before.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
#: Limit on withdrawing a transfer from the node when it is closed, in seconds.
WITHDRAW_TIMEOUT = 3.0
#: Limit on the end of the task that serves it: the closing handshake of its socket, and a little more.
END_TIMEOUT = 3.0

log = get_logger("yagna.http")


class _Service(msgspec.Struct, rename="camel"):
    services_id: str


class Files:
    """Opens transfers and closes those that are still open in the end.

    Args:
        me: asks the node who we are; called once.
    """

    def __init__(self, transport: Transport, clock: Clock, me: Callable[[], Awaitable[Identity]]) -> None:
        self._transport = transport
        self._clock = clock
        self._me = me
        self._node_id: NodeId | None = None
        self._open: dict[str, Transfer] = {}

    async def publish(self, source: Source) -> Transfer:
        """Serve `source` until the transfer is closed."""
        return await self._start(Publication(source))

    async def receive(self, sink: Sink) -> Transfer:
        """Take an upload into `sink` until the transfer is closed."""
        return await self._start(Reception(sink))

    async def close(self) -> None:
        """Close all open transfers at once."""
        await asyncio.gather(*(transfer.close() for transfer in list(self._open.values())))

    async def _start(self, exchange: Exchange) -> Transfer:
        if self._node_id is None:
            self._node_id = (await self._me()).identity
        name = self._clock.unique_id()
        transfer = Transfer(
            self._transport,
            exchange,
            name=name,
            url=f"gftp://{self._node_id}/{name}",
            jitter=self._clock.random,
            when_closed=lambda: self._open.pop(name, None),
        )
        self._open[name] = transfer
        await transfer.start()
        return transfer


class Transfer:
    """One open transfer; a `shem.yagna.api.Channel`.

    A task of its own answers the provider's requests from `start` to `close`. It makes the socket anew when
    it is cut, and registers the name anew where the node forgot it, so that a restart of the node delays a
    transfer and does not end it. What fails on our side makes an error answer to the provider and is kept in
    `failure`; its text stays here, since it may hold names of local files.

    Attributes:
        url: URL for a `transfer` command, ``gftp://<node id>/<name>``.
        failure: what went wrong last on our side, or None.
    """

    def __init__(
        self,
        transport: Transport,
        exchange: Exchange,
        *,
        name: str,
        url: str,
        jitter: Callable[[], float],
        when_closed: Callable[[], object],
    ) -> None:
        self.url = url
        self.failure: TransferError | None = None
        self._transport = transport
        self._exchange = exchange
        self._listen_on = f"/public/gftp/{name}"
        self._jitter = jitter
        self._when_closed = when_closed
        self._service_path: str | None = None
        self._server: asyncio.Task[None] | None = None
        self._end: asyncio.Task[None] | None = None
        self._attempt = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    async def start(self) -> None:
        """Register at the node, open the socket, and serve from then on. Raises `NodeError`."""
        try:
            socket = await self._connect()
            self._server = asyncio.create_task(self._serve(socket), name=f"serve {self.url}")
            self._server.add_done_callback(self._ended)
        except BaseException:  # also when cancelled: the node must not keep the name; closing is bounded
            await self.close()
            raise

    async def close(self) -> None:
        """Withdraw the transfer. Bounded in time; harmless when called twice; raises nothing of its own.

        A caller that is cancelled meanwhile leaves the closing to go on by itself.
        """
        if self._end is None:
            self._end = asyncio.create_task(self._close(), name=f"close {self.url}")
        await asyncio.shield(self._end)

    async def _close(self) -> None:
        try:
            await self._withdraw()
            if self._server is not None:
                self._server.cancel()
                await asyncio.wait({self._server}, timeout=END_TIMEOUT)
        finally:
            self._when_closed()
            self._release()

    def _release(self) -> None:
        try:
            self._exchange.close()
        except Exception as error:  # a sink is the user's code; what it leaves behind is no reason to hang
            log.warning("sink_not_discarded", url=self.url, error=str(error) or type(error).__name__)

    async def _withdraw(self) -> None:
        if self._service_path is None:
            return
        try:
            async with asyncio.timeout(WITHDRAW_TIMEOUT):
                await self._transport.call("DELETE", self._service_path, parting=True)
        except NotFound:
            return
        except (NodeError, TimeoutError) as error:
            # The name leads nowhere from now on; the node drops it when it restarts.
            log.warning("transfer_not_withdrawn", url=self.url, error=str(error) or type(error).__name__)

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            await self._converse(socket)
            if self._end is not None:
                return
            log.info("transfer_socket_cut", url=self.url, close_code=socket.close_code)
            socket = await self._reconnect()

    async def _converse(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.BINARY:
                    continue
                reply = self._reply(message.data)
                if reply is not None:
                    await socket.send_bytes(reply)
                    self._attempt = 0
                # A provider that asks ahead finds its requests answered from buffers, without a single
                # suspension; the rest of the program must get its turn between two pieces.
                await asyncio.sleep(0)
        except (aiohttp.ClientError, OSError) as error:
            log.debug("transfer_answer_not_sent", url=self.url, error=str(error))
        finally:
            await socket.close()

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        if self._service_path is None:
            listen = {"on": self._listen_on, "components": list(self._exchange.components)}
            answer = await self._transport.call(
                "POST", requests.path(requests.GSB, "services"), body={"listen": listen}
            )
            service = answer.value(_Service)
            self._service_path = requests.path(requests.GSB, "services", service.services_id)
        return await self._transport.socket(self._service_path, frames.SUBPROTOCOL)

    async def _reconnect(self) -> aiohttp.ClientWebSocketResponse:
        while True:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._attempt) * (0.5 + self._jitter() / 2)
            self._attempt = min(self._attempt + 1, 10)  # only so that the power stays small
            await asyncio.sleep(pause)
            try:
                return await self._connect()
            except NotFound:
                self._service_path = None  # the node was restarted and forgot the name
            except NodeError as error:
                log.debug("transfer_socket_not_reopened", url=self.url, error=str(error))

    def _reply(self, frame: bytes) -> bytes | None:
        """The answer to one frame; None where it names no request that could be answered."""
        try:
            request = frames.decode(frame)
        except TransferError as error:
            log.warning("transfer_frame_ignored", url=self.url, error=str(error))
            return None
        identifier, component = request.get("id"), request.get("component")
        if not isinstance(identifier, str) or not isinstance(component, str):
            log.warning("transfer_frame_ignored", url=self.url, error="it has no id and component")
            return None
        try:
            payload = self._exchange.answer(component, request.get("payload"))
            return frames.encode({"id": identifier, "payload": payload})
        except Exception as error:  # a source or sink is the user's code and may raise anything
            # Once in full voice: a provider can repeat a bad request as often as it likes.
            report = log.warning if self.failure is None else log.debug
            self.failure = failure(component, error)
            report("transfer_failed", url=self.url, component=bounded(component), error=str(self.failure))
            refusal = f"the requestor could not answer {component[:80]}"
            return frames.encode({"id": identifier, "error": {"InternalError": refusal}})

    def _ended(self, server: asyncio.Task[None]) -> None:
        if self._end is not None:
            # Its outcome no longer matters, but must be looked at, or asyncio complains about it.
            if not server.cancelled():
                server.exception()
            return
        error = None if server.cancelled() else server.exception()
        self.failure = TransferError(f"{self.url} is no longer served; close it and open a new transfer")
        self.failure.__cause__ = error
        log.error("transfer_server_ended", url=self.url, error=repr(error))
