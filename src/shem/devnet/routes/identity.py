"""Who the caller is, and which node this is (contract 3.1)."""

from __future__ import annotations

from aiohttp import web

from shem.devnet.routes import reading
from shem.devnet.routes.writing import answer, complete
from shem.devnet.settings import YAGNA_VERSION
from shem.yagna.models import DEVNET_NAME


def routes() -> list[web.RouteDef]:
    """The routes."""
    return [web.get("/me", _me), web.get("/version/get", _version)]


async def _me(request: web.Request) -> web.Response:
    return answer(complete(reading.identity(request)))


async def _version(_request: web.Request) -> web.Response:
    return answer(
        {
            "current": {
                "version": YAGNA_VERSION,
                "name": DEVNET_NAME,
                "seen": True,
                "releaseTs": "2025-10-03T12:00:00",
                "insertionTs": "2025-10-03T12:00:01",
                "updateTs": None,
            },
            "pending": None,
        }
    )
