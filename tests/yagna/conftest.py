"""A node that answers what it is told to and records what it is asked, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from shem.clock import SystemClock
from shem.config import NodeAddress
from shem.yagna.http import HttpNode

APP_KEY = "k3y-that-nobody-may-see"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Recorded:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class StubNode:
    """Answers by method and path; several answers for one route are given in turn, the last one for ever."""

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self._more = asyncio.Condition()
        self._answers: dict[tuple[str, str], list[Handler]] = defaultdict(list)
        self._runner: web.ServerRunner | None = None
        self.url = ""

    @property
    def address(self) -> NodeAddress:
        return NodeAddress(self.url, APP_KEY)

    @property
    def last(self) -> Recorded:
        return self.requests[-1]

    def asked(self, method: str, path: str) -> list[Recorded]:
        return [r for r in self.requests if (r.method, r.path) == (method, path)]

    async def asked_in_all(self, number: int) -> None:
        """Wait until so many requests have come."""
        async with self._more:
            await self._more.wait_for(lambda: len(self.requests) >= number)

    def on(
        self,
        method: str,
        path: str,
        body: bytes | str | Any = b"",
        *,
        status: int = 200,
        content_type: str = "application/json",
        handler: Handler | None = None,
    ) -> None:
        content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else None
        if content is None:
            content = json.dumps(body).encode()

        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, body=content, headers={"Content-Type": content_type})

        self._answers[method, path].append(handler or answer)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        path = request.rel_url.raw_path
        self.requests.append(
            Recorded(request.method, path, request.rel_url.raw_query_string, dict(request.headers), body)
        )
        async with self._more:
            self._more.notify_all()
        handlers = self._answers.get((request.method, path))
        if not handlers:
            return web.json_response({"message": f"no such route {request.method} {path}"}, status=404)
        handler = handlers.pop(0) if len(handlers) > 1 else handlers[0]
        return await handler(request)  # type: ignore[arg-type]  # the low-level server makes BaseRequests

    async def __aenter__(self) -> StubNode:
        self._runner = web.ServerRunner(
            web.Server(self._handle, handler_cancellation=True), shutdown_timeout=0.1
        )
        await self._runner.setup()
        await self.start()
        return self

    async def start(self, port: int = 0) -> None:
        assert self._runner is not None
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()


Scenario = Callable[[StubNode, HttpNode], Coroutine[Any, Any, Any]]


@pytest.fixture
def stub_node() -> type[StubNode]:
    return StubNode


@pytest.fixture
def app_key() -> str:
    return APP_KEY


@pytest.fixture
def against_stub() -> Callable[..., Any]:
    """Run ``scenario(stub, node)`` in a loop of its own; a hang fails after a few seconds."""

    def run(scenario: Scenario, *, call_timeout: float = 5.0, within: float = 8.0) -> Any:
        async def main() -> Any:
            async with (
                asyncio.timeout(within),
                StubNode() as stub,
                HttpNode(stub.address, clock=SystemClock(), call_timeout=call_timeout) as node,
            ):
                result = await scenario(stub, node)
            left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            assert left == [], "closing the node must leave no task behind"
            return result

        return asyncio.run(main())

    return run
