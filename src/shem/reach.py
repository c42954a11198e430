"""Reaching a service over the network directly from this machine: how tcp and http probes ask by default.

A service behind the network's VPN, or behind a proxy, needs another way (see `shem.service.probe.Reach`).
"""

from __future__ import annotations

import asyncio
import contextlib


class DirectReach:
    """Plain connections. Nothing is kept open between two calls, and nothing bounds them but the caller."""

    async def connect(self, host: str, port: int) -> None:
        """Open a TCP connection, and close it. Raises `OSError` where it is not accepted."""
        _reader, writer = await asyncio.open_connection(host, port)
        writer.close()
        with contextlib.suppress(OSError):
            # That it was accepted is all that matters.
            await writer.wait_closed()

    async def status(self, url: str) -> int:
        """The HTTP status that a GET is answered with, redirects not followed.

        Raises `aiohttp.ClientError` where there is no answer.
        """
        # Imported here: few services have such a probe, and aiohttp is slow to import.
        import aiohttp

        nothing_bounds_it = aiohttp.ClientTimeout(total=None)
        async with (
            aiohttp.ClientSession(timeout=nothing_bounds_it) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            return answer.status
