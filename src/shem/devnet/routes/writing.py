"""Writing responses: values as JSON, refusals with the status and body that the contract gives them.

Source: contract 1.1 to 1.3.
"""

from __future__ import annotations

from decimal import Decimal
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from shem.devnet.allocations import AllocationProblem
from shem.devnet.refusals import UnreadableBody
from shem.errors import NodeError, Unauthorized


def answer(value: Any, status: int = 200) -> web.Response:
    """A JSON response. Ids are JSON strings, `None` is ``null``."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def nothing() -> web.Response:
    """204."""
    return web.Response(status=204)


def money(value: Any) -> Any:
    """A payment value with its amounts as decimal strings that have no exponent."""
    return _plain(msgspec.to_builtins(value, builtin_types=(Decimal,)))


def complete(value: msgspec.Struct) -> dict[str, Any]:
    """A value with all its keys, also those that are at their defaults."""
    return {
        field.encode_name: msgspec.to_builtins(getattr(value, field.name))
        for field in msgspec.structs.fields(value)
    }


def refusal(error: NodeError) -> web.Response:
    """The response to a call that the node refuses."""
    status = error.status or HTTPStatus.INTERNAL_SERVER_ERROR
    if isinstance(error, Unauthorized):
        return web.Response(text=error.message, status=status)
    if isinstance(error, AllocationProblem):
        problem = {"type": error.kind, "title": HTTPStatus(status).phrase, "detail": error.message}
        return web.Response(
            body=msgspec.json.encode(problem), status=status, content_type="application/problem+json"
        )
    response = answer({"message": error.message}, status)
    if isinstance(error, UnreadableBody):
        response.force_close()
    return response


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
