"""The refusals that more than one part of the node uses, in the words of the REST contract (1.3)."""

from __future__ import annotations

from shem.errors import BadRequest, NodeFailure, NotFound, RequestTimeout


class UnreadableBody(BadRequest):
    """400: the body cannot even be read, so nothing more can come over the same connection."""


def bad_request(call: str, message: str, *, status: int = 400) -> BadRequest:
    """400, or another status for what was sent at the wrong time."""
    return BadRequest(call, status, message)


def not_found(call: str, message: str) -> NotFound:
    """404."""
    return NotFound(call, 404, message)


def forbidden(call: str, message: str) -> BadRequest:
    """403: it belongs to somebody else."""
    return BadRequest(call, 403, message)


def timed_out(call: str, message: str = "Timeout") -> RequestTimeout:
    """408."""
    return RequestTimeout(call, 408, message)


def unreachable(call: str, address: str) -> NodeFailure:
    """500: nobody answers at this address of the network's bus."""
    return NodeFailure(call, 500, f"GSB error: endpoint address not found: {address}")
