"""Over real sockets: which failures say that a call has surely not reached the node."""

from __future__ import annotations

import asyncio
import socket

import pytest

from shem.clock import SystemClock
from shem.config import NodeAddress
from shem.errors import NodeUnavailable
from shem.yagna.http import HttpNode


async def failure_at(port: int) -> NodeUnavailable:
    node = HttpNode(NodeAddress(f"http://127.0.0.1:{port}", "key"), clock=SystemClock())
    try:
        with pytest.raises(NodeUnavailable) as caught:
            await node.me()
        return caught.value
    finally:
        await node.close()


def test_a_refused_connection_has_carried_nothing() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert asyncio.run(failure_at(port)).unsent


def test_a_connection_that_is_cut_may_have_carried_the_call() -> None:
    async def main() -> NodeUnavailable:
        async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        async with server:
            return await failure_at(server.sockets[0].getsockname()[1])

    assert not asyncio.run(main()).unsent
