"""Who may call: app keys and the identities they belong to (contract 1.1)."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from shem.errors import Unauthorized
from shem.yagna import models as wire


class Keyring:
    """The app keys of a node."""

    def __init__(self, identities: Mapping[str, wire.Identity]) -> None:
        self._identities = {key.encode(): owner for key, owner in identities.items()}

    def owner(self, request: web.Request) -> wire.Identity:
        """Whom a request's app key belongs to: that of its header, else that of its query.

        Raises `Unauthorized` where it has none or a wrong one.
        """
        call = f"{request.method} {request.path}"
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        given = key.strip() if scheme.lower() == "bearer" else request.query.get("authToken", "")
        if not given:
            raise Unauthorized(call, 401, "Missing application key")
        found = None
        # All keys are compared, each in constant time, so that the answer's delay tells nothing.
        for known, owner in self._identities.items():
            if hmac.compare_digest(known, given.encode(errors="replace")):
                found = owner
        if found is None:
            raise Unauthorized(call, 401, "Invalid application key")
        return found


#: Under this key an application keeps its keyring.
KEYRING: Final = web.AppKey("keyring", Keyring)
