"""The service bus, as far as files need it: requestors offer services, providers call them.

A service belongs to an address such as ``/public/gftp/<uuid>``. Calls wait until somebody is connected who
answers them. How a requestor is connected (a web socket, or a function in this process) is not known here.

Source: contract 3.6.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from shem.devnet.refusals import bad_request, not_found
from shem.devnet.waiting import Bell
from shem.errors import TransferError
from shem.ids import NodeId

ROOT = "/gsb-api/v1"
#: Addresses of files begin with this.
FILES = "/public/gftp/"


class Disconnected(Exception):
    """The connection ended before it had answered; the call can be made again over the next one."""


class Responder(Protocol):
    """Whoever is connected to a service and answers its calls."""

    async def answer(self, component: str, payload: Mapping[str, Any]) -> Any:
        """Answer one call. Raises `Disconnected`, or `TransferError` with what the requestor said."""

    async def close(self, reason: str, *, replaced: bool) -> None:
        """No call will follow, because another one has connected (`replaced`) or the service ended."""


class Service:
    """One address that a requestor answers for."""

    def __init__(self, identifier: str, owner: NodeId, address: str, components: Sequence[str]) -> None:
        self.id, self.owner, self.address = identifier, owner, address
        self.components = tuple(components)
        self.ended = False
        self._responder: Responder | None = None
        self._bell = Bell()

    async def connect(self, responder: Responder) -> None:
        """From now on calls go to this responder; an earlier one is closed."""
        earlier, self._responder = self._responder, responder
        self._bell.ring()
        if earlier is not None:
            await earlier.close(f"Another client connected to {self.address}", replaced=True)

    def disconnect(self, responder: Responder) -> None:
        """This responder is gone; calls wait for the next. Harmless where it was replaced already."""
        if self._responder is responder:
            self._responder = None

    async def call(self, component: str, payload: Mapping[str, Any]) -> Any:
        """Call the service; waits for a connection as long as the service exists.

        Raises `TransferError` where the requestor answers with an error or the service ends.
        """
        while True:
            await self._bell.until(lambda: self.ended or self._responder is not None)
            responder = self._responder
            if self.ended or responder is None:
                raise TransferError(f"{self.address}: the requestor withdrew the service")
            try:
                return await responder.answer(component, payload)
            except Disconnected:
                self.disconnect(responder)

    async def end(self) -> None:
        """Fail the calls that wait, and close the connection."""
        self.ended = True
        responder, self._responder = self._responder, None
        self._bell.ring()
        if responder is not None:
            await responder.close(f"Unbinding service: {self.address}", replaced=False)


class Gsb:
    """All services of one node."""

    def __init__(self) -> None:
        self._services: dict[str, Service] = {}

    def bind(self, who: NodeId, address: str, components: Sequence[str]) -> Service:
        """Make a service. Raises `BadRequest`: 400 for a malformed address, 409 for one that is taken."""
        call = f"POST {ROOT}/services"
        if not address.startswith("/"):
            raise bad_request(call, f"a service address begins with '/', {address!r} does not")
        identifier = _identifier(address)
        if identifier in self._services:
            raise bad_request(call, f"{address} is bound already", status=409)
        service = Service(identifier, who, address, components)
        self._services[identifier] = service
        return service

    def service(self, call: str, who: NodeId, identifier: str) -> Service:
        """One service of a requestor. Raises `NotFound`."""
        service = self._services.get(identifier)
        if service is None or service.owner != who:
            raise not_found(call, f"Service {identifier} not found")
        return service

    async def unbind(self, who: NodeId, identifier: str) -> None:
        """End a service. Raises `NotFound`."""
        service = self.service(f"DELETE {ROOT}/services/{identifier}", who, identifier)
        del self._services[identifier]
        await service.end()

    def at(self, owner: str, address: str) -> Service | None:
        """The service that a node answers for at an address, or None."""
        service = self._services.get(_identifier(address))
        return service if service is not None and service.owner == owner else None

    async def aclose(self) -> None:
        """End all services."""
        services, self._services = list(self._services.values()), {}
        await asyncio.gather(*(service.end() for service in services))


def _identifier(address: str) -> str:
    return base64.urlsafe_b64encode(address.encode()).decode().rstrip("=")
