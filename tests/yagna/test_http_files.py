"""Transfers over the service bridge: a stub plays the node and, behind it, the provider."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web

from shem.errors import NodeAnswerError, NodeFailure, NodeUnavailable, TransferError, Unauthorized
from shem.yagna import frames
from shem.yagna.api import Source
from shem.yagna.content import BytesSink, BytesSource, FileSink, FileSource
from shem.yagna.http import HttpNode, files, transport

NODE_ID = "0x" + "5a" * 20
SERVICES = "/gsb-api/v1/services"
ID = "c2Vydm-ljZQ"
CONTENT = bytes(range(256)) * 500  # 125 KiB: more than three pieces


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


class Bridge:
    """The node's bridge with one provider: registers services, opens sockets, asks."""

    def __init__(self, stub: Any, *, protocol: str = frames.SUBPROTOCOL) -> None:
        self.stub = stub
        self._protocol = protocol
        self._sockets: asyncio.Queue[web.WebSocketResponse] = asyncio.Queue()
        self._open: list[web.WebSocketResponse] = []
        self._next_id = 0
        stub.on("GET", "/me", {"identity": NODE_ID, "name": "n", "role": "manager"})
        stub.on("POST", SERVICES, {"listen": {}, "servicesId": ID}, status=201)
        stub.on("GET", f"{SERVICES}/{ID}", handler=self._upgrade)
        stub.on("DELETE", f"{SERVICES}/{ID}", handler=self._remove)

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=(self._protocol,))
        await socket.prepare(request)
        self._open.append(socket)
        self._sockets.put_nowait(socket)
        await asyncio.Event().wait()  # ended by the server when the connection is gone
        return socket

    async def _remove(self, _request: web.Request) -> web.StreamResponse:
        for socket in self._open:
            await socket.close(code=1000, message=b"Unbinding service")
        return web.json_response(None)

    async def socket(self) -> web.WebSocketResponse:
        return await self._sockets.get()

    async def ask(self, socket: web.WebSocketResponse, component: str, payload: Any) -> dict[str, Any]:
        self._next_id += 1
        request = {"id": f"{self._next_id}", "component": component, "payload": payload}
        await socket.send_bytes(frames.encode(request))
        reply = frames.decode(await socket.receive_bytes())
        assert reply["id"] == f"{self._next_id}"
        return reply

    async def download(self, socket: web.WebSocketResponse) -> bytes:
        size = (await self.ask(socket, "GetMetadata", {}))["payload"]["fileSize"]
        content = b""
        while len(content) < size:
            reply = await self.ask(
                socket,
                "GetChunk",
                {"offset": len(content), "size": min(frames.CHUNK_SIZE, size - len(content))},
            )
            assert reply["payload"]["offset"] == len(content)
            content += reply["payload"]["content"]
        return content

    async def upload(self, socket: web.WebSocketResponse, content: bytes) -> dict[str, Any]:
        for offset in range(0, len(content), frames.CHUNK_SIZE):
            piece = content[offset : offset + frames.CHUNK_SIZE]
            reply = await self.ask(socket, "UploadChunk", {"chunk": {"offset": offset, "content": piece}})
            if "error" in reply:
                return reply
        return await self.ask(socket, "UploadFinished", {"hash": hashlib.sha3_256(content).hexdigest()})

    @property
    def withdrawn(self) -> int:
        return len(self.stub.asked("DELETE", f"{SERVICES}/{ID}"))


@pytest.fixture(autouse=True)
def fast_reconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FIRST_PAUSE", 0.01)
    # The stub reads only when it asks, so it does not answer a closing handshake.
    monkeypatch.setattr(transport, "SOCKET_CLOSE_TIMEOUT", 0.1)


def test_a_provider_reads_what_is_published(against_stub: Any, app_key: str, tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(CONTENT)

    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        channel = await node.publish(FileSource(path))
        assert await bridge.download(await bridge.socket()) == CONTENT
        name = channel.url.removeprefix(f"gftp://{NODE_ID}/")
        assert len(name) == 32
        (registration,) = stub.asked("POST", SERVICES)
        assert registration.json == {
            "listen": {"on": f"/public/gftp/{name}", "components": ["GetMetadata", "GetChunk"]}
        }
        (upgrade,) = stub.asked("GET", f"{SERVICES}/{ID}")
        assert upgrade.headers["Authorization"] == f"Bearer {app_key}"
        assert upgrade.headers["Sec-WebSocket-Protocol"] == frames.SUBPROTOCOL
        assert upgrade.query == ""
        await channel.close()
        assert bridge.withdrawn == 1 and channel.failure is None

    against_stub(scenario)


@pytest.mark.parametrize("content", [CONTENT, b""], ids=["125 KiB", "nothing"])
def test_a_provider_writes_into_a_sink(against_stub: Any, tmp_path: Path, content: bytes) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        channel = await node.receive(FileSink(tmp_path / "out"))
        assert await bridge.upload(await bridge.socket(), content) == {
            "id": bridge_id(bridge),
            "payload": None,
        }
        assert (tmp_path / "out").read_bytes() == content
        assert stub.asked("POST", SERVICES)[0].json["listen"]["components"] == [
            "UploadChunk",
            "UploadFinished",
        ]
        await channel.close()
        assert names_in(tmp_path) == ["out"]

    against_stub(scenario)


def bridge_id(bridge: Bridge) -> str:
    return str(bridge._next_id)


def test_a_limit_that_is_exceeded_is_an_error_answer_and_is_kept(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        sink = BytesSink(limit=50_000)
        channel = await node.receive(sink)
        with structlog.testing.capture_logs() as logs:
            reply = await bridge.upload(await bridge.socket(), CONTENT)
        assert reply["error"] == {"InternalError": "the requestor could not answer UploadChunk"}
        assert isinstance(channel.failure, TransferError)
        assert "more than the 50000 bytes allowed" in str(channel.failure)
        assert [entry["event"] for entry in logs] == ["transfer_failed"]
        with pytest.raises(TransferError, match="not complete"):
            sink.content()

    against_stub(scenario)


def test_a_damaged_upload_is_refused_and_leaves_no_file(against_stub: Any, tmp_path: Path) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        channel = await node.receive(FileSink(tmp_path / "out"))
        socket = await bridge.socket()
        await bridge.ask(socket, "UploadChunk", {"chunk": {"offset": 0, "content": b"damaged"}})
        reply = await bridge.ask(socket, "UploadFinished", {"hash": hashlib.sha3_256(b"whole").hexdigest()})
        assert "error" in reply and "damaged on its way" in str(channel.failure)
        await channel.close()
        assert names_in(tmp_path) == []

    against_stub(scenario)


def test_a_failing_source_tells_the_provider_nothing_about_this_machine(
    against_stub: Any, tmp_path: Path
) -> None:
    path = tmp_path / "private-name"
    path.write_bytes(CONTENT)

    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        channel = await node.publish(FileSource(path))
        socket = await bridge.socket()
        path.unlink()
        reply = await bridge.ask(socket, "GetChunk", {"offset": 0, "size": 10})
        assert "error" in reply and "private-name" not in repr(reply)
        assert "private-name" in str(channel.failure)
        path.write_bytes(CONTENT)
        assert "error" in await bridge.ask(socket, "GetChunk", {"offset": 0, "size": 10})
        assert (await bridge.ask(socket, "GetMetadata", {}))["payload"] == {"fileSize": len(CONTENT)}

    against_stub(scenario)


def test_a_source_of_the_users_may_raise_anything(against_stub: Any) -> None:
    class Broken:
        size = 5

        def read(self, offset: int, length: int) -> bytes:
            raise KeyError("my bug")

    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        source: Source = Broken()
        channel = await node.publish(source)
        assert "error" in await bridge.ask(await bridge.socket(), "GetChunk", {"offset": 0, "size": 5})
        assert channel.failure is not None and isinstance(channel.failure.__cause__, KeyError)

    against_stub(scenario)


def test_frames_that_are_no_requests_are_ignored(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        channel = await node.publish(BytesSource(b"hello"))
        socket = await bridge.socket()
        await socket.send_str("text")
        await socket.send_bytes(b"")
        await socket.send_bytes(b"\xff" * 20)
        await socket.send_bytes(frames.encode({"id": 5, "component": "GetMetadata"}))
        await socket.send_bytes(frames.encode({"id": "x"}))
        assert await bridge.download(socket) == b"hello"
        assert channel.failure is None

    against_stub(scenario)


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_a_socket_that_is_cut_is_made_anew(against_stub: Any, how: str) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        await node.publish(BytesSource(CONTENT))
        for _ in range(3):
            socket = await bridge.socket()
            assert (await bridge.ask(socket, "GetMetadata", {}))["payload"]["fileSize"] == len(CONTENT)
            if how == "closed":
                await socket.close(code=1011)
            else:
                assert socket._req is not None and socket._req.transport is not None
                socket._req.transport.abort()
        assert await bridge.download(await bridge.socket()) == CONTENT
        assert len(stub.asked("POST", SERVICES)) == 1

    against_stub(scenario)


def test_an_upload_goes_on_after_a_cut(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        sink = BytesSink()
        await node.receive(sink)
        socket = await bridge.socket()
        await bridge.ask(socket, "UploadChunk", {"chunk": {"offset": 0, "content": CONTENT[:1000]}})
        await socket.close()
        assert "error" not in await bridge.upload(await bridge.socket(), CONTENT)
        assert sink.content() == CONTENT

    against_stub(scenario)


def test_a_node_that_forgot_the_name_is_told_it_again(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        await node.publish(BytesSource(b"hello"))
        socket = await bridge.socket()
        route = ("GET", f"{SERVICES}/{ID}")
        upgrade = stub._answers[route].pop()
        stub.on(*route, {"message": "service not found"}, status=404)
        stub._answers[route].append(upgrade)
        await socket.close()
        assert await bridge.download(await bridge.socket()) == b"hello"
        first, second = stub.asked("POST", SERVICES)
        assert first.json == second.json

    against_stub(scenario)


def test_a_node_that_is_down_for_a_while_is_tried_again_with_pauses(
    against_stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LONGEST_PAUSE", 0.05)

    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        channel = await node.publish(BytesSource(b"hello"))
        socket = await bridge.socket()
        route = ("GET", f"{SERVICES}/{ID}")
        upgrade = stub._answers[route].pop()
        stub.on(*route, "overloaded", status=503)
        before, started = len(stub.requests), time.monotonic()
        await socket.close()
        await stub.asked_in_all(before + 6)
        assert time.monotonic() - started > 0.08, "six tries take at least half of their pauses"
        stub._answers[route][:] = [upgrade]
        assert await bridge.download(await bridge.socket()) == b"hello"
        assert channel.failure is None

    against_stub(scenario)


def test_closing_is_idempotent_also_for_several_at_once(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        channel = await node.publish(BytesSource(b"hello"))
        await bridge.socket()
        await asyncio.gather(channel.close(), channel.close())
        await channel.close()
        assert bridge.withdrawn == 1
        assert [task for task in asyncio.all_tasks() if "gftp" in task.get_name()] == []

    against_stub(scenario)


def test_closing_that_is_cancelled_goes_on_by_itself(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        channel = await node.publish(BytesSource(b"hello"))
        closing = asyncio.create_task(channel.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await channel.close()
        assert bridge.withdrawn == 1

    against_stub(scenario)


def _answering(status: int) -> Callable[[Any], None]:
    def prepare(stub: Any) -> None:
        stub._answers["DELETE", f"{SERVICES}/{ID}"].clear()
        stub.on("DELETE", f"{SERVICES}/{ID}", {"message": "no"}, status=status)

    return prepare


def _hanging(stub: Any) -> None:
    async def hang(_request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    stub._answers["DELETE", f"{SERVICES}/{ID}"].clear()
    stub.on("DELETE", f"{SERVICES}/{ID}", handler=hang)


@pytest.mark.parametrize(
    ("prepare", "warnings"),
    [(_answering(404), 0), (_answering(500), 1), (_hanging, 1)],
    ids=["404", "500", "hang"],
)
@pytest.mark.parametrize("by", ["channel", "node"])
def test_closing_is_bounded_whatever_the_node_says(
    prepare: Callable[[Any], None],
    warnings: int,
    by: str,
    against_stub: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "WITHDRAW_TIMEOUT", 0.2)

    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        channel = await node.publish(BytesSource(b"hello"))
        await bridge.socket()
        prepare(stub)
        started = time.monotonic()
        await (channel.close() if by == "channel" else node.close())
        assert time.monotonic() - started < 1

    with structlog.testing.capture_logs() as logs:
        against_stub(scenario)
    assert [entry["event"] for entry in logs].count("transfer_not_withdrawn") == warnings


def test_closing_the_node_withdraws_all_open_transfers(against_stub: Any, tmp_path: Path) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        await node.publish(BytesSource(b"hello"))
        await node.receive(FileSink(tmp_path / "out"))
        await bridge.socket()
        socket = await bridge.socket()
        await bridge.ask(socket, "UploadChunk", {"chunk": {"offset": 0, "content": b"part"}})
        assert len(names_in(tmp_path)) == 1
        await node.close()
        assert bridge.withdrawn == 2
        assert names_in(tmp_path) == []
        assert len(stub.asked("GET", "/me")) == 1

    against_stub(scenario)


def test_a_socket_in_another_language_is_refused_and_withdrawn(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub, protocol="gsb+json")
        with pytest.raises(NodeAnswerError, match=r"gsb\+flexbuffers"):
            await node.publish(BytesSource(b"hello"))
        assert bridge.withdrawn == 1

    against_stub(scenario)


@pytest.mark.parametrize(
    ("status", "kind"), [(401, Unauthorized), (500, NodeFailure), (200, NodeAnswerError)]
)
def test_a_refused_socket_is_a_typed_error_without_the_key(
    status: int, kind: type[Exception], against_stub: Any, app_key: str
) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        stub._answers["GET", f"{SERVICES}/{ID}"].clear()
        stub.on("GET", f"{SERVICES}/{ID}", "no", status=status)
        with pytest.raises(kind) as caught:
            await node.publish(BytesSource(b"hello"))
        assert app_key not in repr((vars(caught.value), caught.value.__cause__, caught.value.__context__))
        assert bridge.withdrawn == 1

    against_stub(scenario)


def test_a_refused_registration_is_passed_on(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on("GET", "/me", {"identity": NODE_ID})
        stub.on("POST", SERVICES, {"message": "no"}, status=500)
        with pytest.raises(NodeFailure):
            await node.publish(BytesSource(b"hello"))
        assert [request.method for request in stub.requests] == ["GET", "POST"]

    against_stub(scenario)


def test_a_publication_that_is_cancelled_half_way_is_withdrawn(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        reached = asyncio.Event()

        async def hang(_request: web.Request) -> web.StreamResponse:
            reached.set()
            await asyncio.Event().wait()
            raise AssertionError

        stub._answers["GET", f"{SERVICES}/{ID}"].clear()
        stub.on("GET", f"{SERVICES}/{ID}", handler=hang)
        publishing = asyncio.create_task(node.publish(BytesSource(b"hello")))
        await reached.wait()
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        assert bridge.withdrawn == 1

    against_stub(scenario)


def test_closing_the_node_while_a_publication_is_half_way_ends_it(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        reached = asyncio.Event()

        async def hang(_request: web.Request) -> web.StreamResponse:
            reached.set()
            await asyncio.Event().wait()
            raise AssertionError

        stub._answers["GET", f"{SERVICES}/{ID}"].clear()
        stub.on("GET", f"{SERVICES}/{ID}", handler=hang)
        publishing = asyncio.create_task(node.publish(BytesSource(b"hello")))
        await reached.wait()
        await node.close()
        with pytest.raises(NodeUnavailable, match="closed"):
            await publishing
        assert bridge.withdrawn == 1

    against_stub(scenario)


def test_a_provider_that_asks_ahead_does_not_starve_the_rest_of_the_program(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        reads = turns = 0

        class Counting(BytesSource):
            def read(self, offset: int, length: int) -> bytes:
                nonlocal reads
                reads += 1
                return super().read(offset, length)

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        await node.publish(Counting(CONTENT))
        socket = await bridge.socket()
        await socket.send_bytes(b"")
        requests = [
            frames.encode({"id": str(n), "component": "GetChunk", "payload": {"offset": 0, "size": 1}})
            for n in range(200)
        ]
        other = asyncio.create_task(others())
        try:
            for request in requests:
                await socket.send_bytes(request)
            for _ in requests:
                await socket.receive_bytes()
        finally:
            other.cancel()
        assert reads == 200 and turns >= reads / 2

    against_stub(scenario)


def test_a_frame_larger_than_allowed_cuts_the_socket_and_not_the_transfer(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        bridge = Bridge(stub)
        await node.publish(BytesSource(b"hello"))
        socket = await bridge.socket()
        with contextlib.suppress(ConnectionError):  # the client may hang up before it has read all of it
            await socket.send_bytes(bytes(5 * 1024 * 1024))
        assert await bridge.download(await bridge.socket()) == b"hello"

    against_stub(scenario)
