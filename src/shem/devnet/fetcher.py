"""http(s) URLs for the `transfer` command, over aiohttp."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import aiohttp

from shem.errors import TransferError
from shem.yagna.frames import CHUNK_SIZE

_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)


class HttpFetcher:
    """Reads by GET and writes by PUT. Connections are made when the first is needed."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str) -> AsyncIterator[bytes]:
        """The content at a URL, in pieces. Raises `TransferError`."""
        try:
            async with self._open().get(url) as response:
                _check(url, response)
                async for piece in response.content.iter_chunked(CHUNK_SIZE):
                    yield piece
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise TransferError(f"GET {url}: {error!r}") from error

    async def put(self, url: str, content: AsyncIterator[bytes]) -> None:
        """Store content at a URL. Raises `TransferError`."""
        try:
            async with self._open().put(url, data=content) as response:
                _check(url, response)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise TransferError(f"PUT {url}: {error!r}") from error

    async def aclose(self) -> None:
        """Drop all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False)
        return self._session


def _check(url: str, response: aiohttp.ClientResponse) -> None:
    if not 200 <= response.status < 300:
        raise TransferError(f"{response.method} {url}: answered {response.status} {response.reason}")
