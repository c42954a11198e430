"""The image registry: where providers can download an image, by its hash or tag.

Asked only on a real network, and only when a demand is made.

Source: the registry's ``/v1/image/info``, as the network's other clients use it (contract 5.3, item 16).
"""

from __future__ import annotations

import aiohttp
import msgspec

from shem.errors import ConfigError, NodeUnavailable

DEFAULT_REGISTRY_URL = "https://registry.golem.network"
_SECONDS = 20.0


class _ImageInfo(msgspec.Struct):
    http: str
    sha3: str


class HttpImageRegistry:
    """An image registry over HTTP."""

    def __init__(self, url: str = DEFAULT_REGISTRY_URL) -> None:
        self._url = url.rstrip("/")

    async def find(self, *, image_hash: str | None, image_tag: str | None) -> tuple[str, str]:
        """Hash and URL of an image.

        Raises `ConfigError` where the registry knows no such image, `NodeUnavailable` where it does not
        answer.
        """
        query = {"hash": image_hash} if image_hash is not None else {"tag": image_tag or ""}
        call = f"GET {self._url}/v1/image/info"
        try:
            timeout = aiohttp.ClientTimeout(total=_SECONDS)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{self._url}/v1/image/info", params={**query, "count": "true"}) as response,
            ):
                body = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NodeUnavailable(call, None, f"{type(error).__name__}: {error}") from error
        name = image_hash or image_tag
        if status != 200:
            raise ConfigError(f"the image registry at {self._url} knows no image {name!r} (answer {status})")
        try:
            info = msgspec.json.decode(body, type=_ImageInfo)
        except msgspec.DecodeError as error:
            raise NodeUnavailable(call, status, f"unreadable answer about image {name!r}: {error}") from error
        return info.sha3, info.http
