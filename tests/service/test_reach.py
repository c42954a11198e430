"""Reaching a service directly, over real sockets on this machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from shem.reach import DirectReach
from shem.service.probe import Reach


@contextlib.asynccontextmanager
async def serving(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers every request with these bytes; its port, and the first lines of the requests."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if line := await reader.readline():
            asked.append(line.strip())
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


def answering(status: str, *headers: str) -> bytes:
    return "\r\n".join(
        [f"HTTP/1.1 {status}", *headers, "Content-Length: 0", "Connection: close", "", ""]
    ).encode()


def test_a_connection_that_is_accepted_is_closed_again() -> None:
    async def main() -> None:
        reach: Reach = DirectReach()
        async with serving(b"") as (port, asked):
            await reach.connect("127.0.0.1", port)
        assert asked == []
        with pytest.raises(OSError, match=r"refused|failed"):
            await reach.connect("127.0.0.1", port)

    asyncio.run(main())


@pytest.mark.parametrize("status", [200, 302, 503])
def test_the_status_of_an_answer_is_given_as_it_is_and_redirects_are_not_followed(status: int) -> None:
    async def main() -> None:
        answer = answering(f"{status} Whatever", "Location: http://127.0.0.1:1/elsewhere")
        async with serving(answer) as (port, asked):
            assert await DirectReach().status(f"http://127.0.0.1:{port}/health?full=1") == status
        assert asked == [b"GET /health?full=1 HTTP/1.1"]

    asyncio.run(main())


def test_what_does_not_answer_or_is_no_http_raises() -> None:
    async def main() -> None:
        async with serving(b"220 mail.example ESMTP\r\n") as (port, _asked):
            with pytest.raises(aiohttp.ClientError):
                await DirectReach().status(f"http://127.0.0.1:{port}/")
        with pytest.raises(aiohttp.ClientError):
            await DirectReach().status(f"http://127.0.0.1:{port}/")

    asyncio.run(main())


def test_a_call_that_is_given_up_leaves_nothing_behind() -> None:
    async def main() -> None:
        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(hang, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await DirectReach().status(f"http://127.0.0.1:{port}/")
            await asyncio.sleep(0.05)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
