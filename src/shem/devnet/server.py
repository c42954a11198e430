"""The node's REST API as an aiohttp application: auth on every route, errors in the contract's form.

Source: contract 1.1, 1.3. What the routes do is in `routes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from shem.devnet.node import Node
from shem.devnet.routes import identity
from shem.devnet.routes.activity import ActivityRoutes
from shem.devnet.routes.gsb import GsbRoutes
from shem.devnet.routes.keyring import KEYRING, Keyring
from shem.devnet.routes.market import MarketRoutes
from shem.devnet.routes.payment import PaymentRoutes
from shem.devnet.routes.reading import call_of
from shem.devnet.routes.writing import answer, refusal
from shem.errors import NodeError, NodeFailure
from shem.log import get_logger
from shem.yagna import models as wire

_log = get_logger("devnet")

#: Largest request body, in bytes: scripts and property maps are small, but nobody shall count on it.
MAX_BODY: Final = 64 * 1024 * 1024
_NODE: Final = web.AppKey("node", Node)
_OPEN_PATHS: Final = ("/version/get",)


def make_app(node: Node, identities: Mapping[str, wire.Identity]) -> web.Application:
    """The REST API over a node. `identities`: who each app key belongs to."""
    app = web.Application(middlewares=[_guard], client_max_size=MAX_BODY)
    app[KEYRING] = Keyring(identities)
    app[_NODE] = node
    app.add_routes(
        [
            *identity.routes(),
            *MarketRoutes(node).routes(),
            *ActivityRoutes(node).routes(),
            *PaymentRoutes(node).routes(),
            *GsbRoutes(node).routes(),
        ]
    )
    return app


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        if request.path not in _OPEN_PATHS:
            request.app[KEYRING].owner(request)
        # Reading is harmless, and event polls must never be answered by a 5xx (contract 1.3).
        if request.app[_NODE].closed and request.method != "GET":
            raise NodeFailure(call_of(request), 503, "the node is stopping")
        return await handler(request)
    except NodeError as error:
        return refusal(error)
    except web.HTTPException as error:
        return answer({"message": error.text or error.reason}, error.status)
    # The contract's form also for a bug of ours, and a trace of it in the log.
    except Exception as error:
        _log.error("request_broke", call=call_of(request), exc_info=True)
        return answer({"message": f"internal error of the devnet: {error!r}"}, 500)
