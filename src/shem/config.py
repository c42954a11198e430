"""Settings, read once from arguments and the environment, frozen from then on. No I/O.

Environment (names as yagna's other clients use them):

=========================  ==========================================  =================================
variable                   meaning                                     without it
=========================  ==========================================  =================================
``YAGNA_APPKEY``           app key of a node to use                    the embedded devnet is used
``YAGNA_API_URL``          base URL of that node                       ``http://127.0.0.1:7465``
``YAGNA_SUBNET``           market subnet                               ``public``
``YAGNA_PAYMENT_DRIVER``   payment driver                              ``erc20``
``YAGNA_PAYMENT_NETWORK``  payment network                             ``holesky``
=========================  ==========================================  =================================
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TypeAlias
from urllib.parse import urlsplit

from shem.errors import ConfigError

DEFAULT_API_URL = "http://127.0.0.1:7465"
#: Networks whose token is the real one; everywhere else it is the test token (contract 3.2.1).
MAINNETS = frozenset({"mainnet", "polygon"})
#: All the GLM there is; a larger amount is a slip of the pen, and may be too long to be written out.
ALL_GLM = Decimal(10**9)


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Where a node listens and how to be let in.

    The app key never shows in `repr`, so an address may be logged.
    """

    url: str
    app_key: str = field(repr=False)

    def __post_init__(self) -> None:
        if not _is_http_url(self.url):
            raise ConfigError(
                f"node address {self.url!r} is no http(s) URL; expected something like {DEFAULT_API_URL}"
            )
        if not self.app_key:
            raise ConfigError(f"no app key for the node at {self.url}; set YAGNA_APPKEY")
        if not (self.app_key.isascii() and self.app_key.isprintable()):
            raise ConfigError(
                f"the app key for the node at {self.url} holds characters that no header can carry"
            )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> NodeAddress | None:
        """The node that the environment names, or None where no app key is set."""
        app_key = environ.get("YAGNA_APPKEY", "").strip()
        if not app_key:
            return None
        return cls(environ.get("YAGNA_API_URL", "").strip() or DEFAULT_API_URL, app_key)


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket without its twin, a port beyond 65535
        return False


#: Makes a node to run on where none is configured; its context gives the address.
EmbeddedNode: TypeAlias = Callable[[], AbstractAsyncContextManager[NodeAddress]]

_embedded: list[EmbeddedNode] = []


def offer_embedded_node(make: EmbeddedNode) -> None:
    """Say what to run on where no node is configured. Called by the package's facade, with the devnet.

    That way nothing below the facade knows the devnet.
    """
    _embedded[:] = [make]


def embedded_node() -> EmbeddedNode | None:
    """What to run on where no node is configured."""
    return _embedded[0] if _embedded else None


@dataclass(frozen=True, slots=True)
class PaymentSettings:
    """With what, on which network and up to how much is paid.

    `budget` is the sum set aside in one allocation, in GLM.
    """

    budget: Decimal
    driver: str = "erc20"
    network: str = "holesky"

    @property
    def platform(self) -> str:
        """The platform's name on the wire, such as ``erc20-holesky-tglm``."""
        token = "glm" if self.network in MAINNETS else "tglm"
        return f"{self.driver}-{self.network}-{token}".lower()

    @classmethod
    def make(
        cls,
        budget: object,
        driver: str | None = None,
        network: str | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> PaymentSettings:
        """Settings from arguments, filled up from the environment. Raises `ConfigError` on a bad budget."""
        return cls(
            budget=parse_amount(budget, "budget"),
            driver=driver or environ.get("YAGNA_PAYMENT_DRIVER") or "erc20",
            network=network or environ.get("YAGNA_PAYMENT_NETWORK") or "holesky",
        )


def subnet_from(subnet_tag: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """The market subnet: the argument, else the environment's, else ``public``."""
    return subnet_tag or environ.get("YAGNA_SUBNET") or "public"


def parse_amount(value: object, name: str) -> Decimal:
    """An amount of money in GLM, from int, float, str or Decimal.

    Raises `ConfigError` unless it is more than 0, and no more than there is.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ConfigError(f"{name} must be a number of GLM, not {type(value).__name__} {value!r}")
    try:
        amount = Decimal(str(value) if isinstance(value, float) else value)
    except InvalidOperation:
        raise ConfigError(f"{name} must be a number of GLM, not {value!r}") from None
    if not amount.is_finite() or amount <= 0:
        raise ConfigError(f"{name} must be more than 0 GLM and finite, not {amount}")
    if amount > ALL_GLM:
        raise ConfigError(f"{name} must be at most {ALL_GLM} GLM, which is all there is, not {amount:.3e}")
    return amount
