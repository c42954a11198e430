"""Connections that fail in every way, and an end that comes at once. Real sockets are the point here."""

from __future__ import annotations

import asyncio
import socket
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from aiohttp import web

from shem.clock import SystemClock
from shem.config import NodeAddress
from shem.errors import (
    BadRequest,
    ConfigError,
    NodeAnswerError,
    NodeError,
    NodeUnavailable,
    NotFound,
    Unauthorized,
)
from shem.ids import AgreementId, AppSessionId, DemandId
from shem.yagna.http import HttpNode
from shem.yagna.http import transport as transport_module

KEY = "another-k3y"
ME = {"identity": "0x" + "5a" * 20, "name": "n", "role": "manager"}
EVENTS = "/market-api/v1/demands/D/events"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(scenario: Awaitable[Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(8):
            return await scenario

    return asyncio.run(bounded())


def http_node(url: str, **settings: Any) -> HttpNode:
    return HttpNode(NodeAddress(url, KEY), clock=SystemClock(), **settings)


@asynccontextmanager
async def raw_server(talk: Talk) -> AsyncIterator[str]:
    """A server below HTTP, for answers that no HTTP server would give."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def failure_of(call: Awaitable[Any]) -> NodeError:
    with pytest.raises(NodeError) as caught:
        await call
    return caught.value


def everything_in(error: BaseException | None) -> str:
    """All that an error could show of itself, with everything that hangs on it."""
    texts = []
    while error is not None:
        texts += [
            str(error),
            repr(error),
            repr(error.args),
            repr(vars(error)),
            *traceback.format_exception(error),
        ]
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def test_every_request_carries_the_key_and_nothing_else_shows_it(against_stub: Any, app_key: str) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on("GET", "/me", ME)
        await node.me()
        assert stub.last.headers["Authorization"] == f"Bearer {app_key}"
        assert app_key not in repr(node) + str(node) + repr(vars(node))
        stub.on("DELETE", "/market-api/v1/demands/D", f"Invalid application key {app_key}", status=401)
        error = await failure_of(node.unsubscribe(DemandId("D")))
        assert isinstance(error, Unauthorized)
        assert app_key not in everything_in(error)

    with structlog.testing.capture_logs() as logs:
        against_stub(scenario)
    assert app_key not in repr(logs)


def test_a_refused_connection_is_an_unavailable_node() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"

        async def scenario() -> NodeError:
            async with http_node(url) as node:
                return await failure_of(node.me())

        error = run(scenario())
    assert type(error) is NodeUnavailable
    assert (error.call, error.status) == ("GET /me", None)
    assert isinstance(error.__cause__, OSError)
    assert "YAGNA_API_URL" in str(error)


async def _close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()


async def _reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.transport.abort()


async def _plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()


def _saying(text: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        await writer.drain()

    return talk


@pytest.mark.parametrize(
    ("talk", "kind"),
    [
        (_close_at_once, NodeUnavailable),
        (_reset, NodeUnavailable),
        (_saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), NodeUnavailable),
        (_saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"), NodeUnavailable),
        (_saying(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), NodeAnswerError),
        (_saying(b"HTTP/1.1 200 OK\r\nBad Header\r\n\r\n"), NodeAnswerError),
        (
            _saying(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"),
            NodeAnswerError,
        ),
    ],
    ids=["closed", "reset", "cut body", "cut chunk", "no HTTP", "bad header", "bad compression"],
)
def test_a_broken_conversation_is_a_typed_error(talk: Talk, kind: type[NodeError]) -> None:
    async def scenario() -> NodeError:
        async with raw_server(talk) as url, http_node(url) as node:
            return await failure_of(node.me())

    error = run(scenario())
    assert type(error) is kind
    assert error.call == "GET /me"
    assert KEY not in everything_in(error)


def test_a_host_without_a_name_is_an_unavailable_node() -> None:
    async def scenario() -> NodeError:
        async with http_node("http://node.invalid:7465") as node:
            return await failure_of(node.me())

    assert type(run(scenario())) is NodeUnavailable


def test_tls_to_a_plain_port_is_an_unavailable_node() -> None:
    async def scenario() -> NodeError:
        async with (
            raw_server(_plain) as url,
            http_node(url.replace("http:", "https:")) as node,
        ):
            return await failure_of(node.me())

    assert isinstance(run(scenario()), NodeUnavailable)


def test_a_node_that_never_answers_is_given_up_after_the_call_limit(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on("GET", "/me", handler=_never)
        started = time.monotonic()
        error = await failure_of(node.me())
        assert type(error) is NodeUnavailable and "0.2 s" in error.message
        assert 0.15 < time.monotonic() - started < 3

    against_stub(scenario, call_timeout=0.2)


async def _never(_request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


def test_a_long_poll_waits_a_margin_longer_than_the_node(
    against_stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "POLL_MARGIN", 0.3)

    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on("GET", EVENTS, handler=_never)
        started = time.monotonic()
        error = await failure_of(node.demand_events(DemandId("D"), timeout=0.2))
        assert type(error) is NodeUnavailable and "0.5 s" in error.message
        assert 0.45 < time.monotonic() - started < 3
        assert "timeout=0.2" in stub.last.query

    # The limit of ordinary calls, shorter here, does not apply to polls.
    against_stub(scenario, call_timeout=0.05)


def test_redirects_are_not_followed_with_the_key(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        async def redirect(_request: web.Request) -> web.StreamResponse:
            raise web.HTTPFound("/elsewhere")

        stub.on("GET", "/me", handler=redirect)
        assert type(await failure_of(node.me())) is NodeAnswerError
        assert [request.path for request in stub.requests] == ["/me"]

    against_stub(scenario)


def test_commands_do_not_wait_behind_any_number_of_long_polls(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on("GET", "/me", ME)
        polls = [asyncio.create_task(node.demand_events(DemandId(f"D{n}"), timeout=60)) for n in range(150)]
        for n in range(150):
            stub.on("GET", f"/market-api/v1/demands/D{n}/events", handler=_never)
        await stub.asked_in_all(150)
        started = time.monotonic()
        await node.me()
        assert time.monotonic() - started < 2
        for poll in polls:
            poll.cancel()
        results = await asyncio.gather(*polls, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)

    against_stub(scenario)


def test_a_cancelled_call_is_cancelled_and_drops_its_connection(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        dropped = asyncio.Event()

        async def until_dropped(_request: web.Request) -> web.StreamResponse:
            try:
                await asyncio.Event().wait()
            finally:
                dropped.set()
            raise AssertionError

        stub.on("GET", "/me", handler=until_dropped)
        call = asyncio.create_task(node.me())
        await stub.asked_in_all(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await dropped.wait()

    against_stub(scenario)


@pytest.mark.parametrize("ticks", [0, 1, 2, 3, 5, 8, 200])
def test_closing_ends_a_pending_poll_at_once_wherever_it_is(against_stub: Any, ticks: int) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on("GET", EVENTS, handler=_never)
        poll = asyncio.create_task(node.demand_events(DemandId("D"), timeout=60))
        for _ in range(ticks):
            await asyncio.sleep(0)
        started = time.monotonic()
        await node.close()
        error = await failure_of(poll)
        assert type(error) is NodeUnavailable and "closed" in error.message
        assert time.monotonic() - started < 2, "the poll itself would have taken a minute"

    against_stub(scenario)


def test_closing_twice_is_harmless_and_later_calls_are_refused(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        stub.on("GET", "/me", ME)
        await node.me()
        await asyncio.gather(node.close(), node.close())
        await node.close()
        error = await failure_of(node.me())
        assert type(error) is NodeUnavailable and "closed" in error.message
        assert len(stub.requests) == 1

    against_stub(scenario)


def test_a_node_that_was_never_used_closes_without_a_loop_of_its_own() -> None:
    node = http_node("http://127.0.0.1:1")
    asyncio.run(node.close())
    assert type(run(failure_of(node.me()))) is NodeUnavailable


def test_a_base_url_with_a_path_is_kept(stub_node: Any) -> None:
    async def scenario() -> str:
        async with stub_node() as stub:
            stub.on("GET", "/behind/a/proxy/me", ME)
            async with http_node(stub.url + "/behind/a/proxy/") as node:
                await node.me()
            return str(stub.last.path)

    assert run(scenario()) == "/behind/a/proxy/me"


@pytest.mark.parametrize(
    "url",
    [
        "http://user:pass-w0rd@host",
        "http://host?x=pass-w0rd",
        "http://host:99999/",
        "http://:80",
        "http://h#x",
    ],
)
def test_an_address_that_is_no_base_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        http_node(url)
    assert "pass-w0rd" not in everything_in(caught.value)


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_call_limit_must_leave_time(limit: float) -> None:
    with pytest.raises(ConfigError, match="call_timeout"):
        http_node("http://127.0.0.1:1", call_timeout=limit)


def test_the_error_names_method_and_path_but_not_the_query(against_stub: Any) -> None:
    async def scenario(stub: Any, node: HttpNode) -> None:
        session = AppSessionId("session-1")
        stub.on("POST", "/market-api/v1/agreements/G/confirm", {"message": "no"}, status=409)
        error = await failure_of(node.confirm_agreement(AgreementId("G"), session))
        assert type(error) is BadRequest
        assert error.call == "POST /market-api/v1/agreements/G/confirm"
        assert "session-1" not in str(error)
        error = await failure_of(
            node.agreement_events(after=datetime.now(UTC), timeout=0, app_session_id=session)
        )
        assert type(error) is NotFound and error.call == "GET /market-api/v1/agreementEvents"

    against_stub(scenario)
