"""One session with a node: the key, the limits, the mapping of failures, and an end that leaves nothing open.

What the answers mean is in `answers`; which calls there are, in `node`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

import aiohttp
import yarl

from shem.config import NodeAddress
from shem.errors import ConfigError, NodeAnswerError, NodeError, NodeUnavailable
from shem.log import redactor
from shem.yagna.http import requests
from shem.yagna.http.answers import Answer, bounded, refusal, refused

#: How much longer than the node a long poll waits before it takes the node for dead, in seconds.
POLL_MARGIN = 5.0
#: Limit on opening a connection: a host that drops packets must not use up the time of the whole call.
CONNECT_TIMEOUT = 10.0
#: Limit on the closing handshake of a web socket.
SOCKET_CLOSE_TIMEOUT = 2.0

#: Everything aiohttp raises of its own accord; `OSError` covers refused, reset, TLS and DNS failures, and
#: `TimeoutError`.
_FAILURES = (aiohttp.ClientError, OSError)


class Transport:
    """Sends calls to one node.

    The session is made at the first call, in the loop that runs then. Every call raises `NodeError` and its
    kin, and nothing else about the node; a cancelled call is dropped together with its connection.
    """

    def __init__(self, address: NodeAddress, *, call_timeout: float) -> None:
        if not call_timeout > 0:
            raise ConfigError(f"call_timeout must be more than 0 seconds, not {call_timeout}")
        self._base = _base_of(address)
        self._headers = {
            "Authorization": f"Bearer {address.app_key}",
            "Accept": "application/json",
            # The peer is mostly on the same machine: compression would only cost time, and a wrong one
            # could not be told from a cut connection.
            "Accept-Encoding": "identity",
            "User-Agent": "shem",
        }
        redactor.learn(address.app_key)
        self._call_timeout = call_timeout
        self._session: aiohttp.ClientSession | None = None
        self._closing = False
        self._closed = False
        # Time limits of the calls under way, by whether they are part of closing. Bringing a limit forward is
        # how a call is ended from outside, wherever in aiohttp it happens to be.
        self._underway: dict[asyncio.Timeout, bool] = {}

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        wait: float | None = None,
        parting: bool = False,
    ) -> Answer:
        """Send one request and return its 2xx answer.

        Args:
            path: from the node's base URL, quoted.
            body: sent as JSON unless None.
            wait: how long the node may take its time, in seconds; sent as `timeout`. The client waits a
                margin longer. Without it the limit is that of ordinary calls.
            parting: part of closing, so still allowed after `interrupt`.
        """
        name = f"{method} {path}"
        limit = self._call_timeout
        parameters = dict(query or {})
        if wait is not None:
            parameters["timeout"] = requests.seconds(wait)
            limit = max(0.0, wait) + POLL_MARGIN
        content = None if body is None else requests.body(body)
        headers = {} if content is None else {"Content-Type": "application/json"}
        url = self._url(path + requests.query(parameters))
        session = self._open(name, parting)
        try:
            async with (
                self._limited(limit, parting),
                session.request(
                    method, url, data=content, headers=headers, allow_redirects=False
                ) as response,
            ):
                answer = Answer(name, response.status, await response.read())
        except _FAILURES as error:
            failure = self._failed(name, error, limit)
        else:
            refused_with = refusal(name, answer.status, answer.body)
            if refused_with is None:
                return answer
            failure = refused_with
        # Outside of the `except`, so that aiohttp's error, which may hold the request's headers and with them
        # the key, does not hang on to this one as its context.
        raise failure

    async def socket(self, path: str, protocol: str) -> aiohttp.ClientWebSocketResponse:
        """Open a web socket that speaks `protocol`."""
        name = f"GET {path}"
        session = self._open(name, parting=False)
        limit = self._call_timeout
        try:
            async with self._limited(limit):
                socket = await session.ws_connect(
                    self._url(path),
                    protocols=(protocol,),
                    timeout=aiohttp.ClientWSTimeout(ws_close=SOCKET_CLOSE_TIMEOUT),
                )
        except aiohttp.WSServerHandshakeError as error:
            failure: NodeError = refused(name, error.status, error.message)
        except _FAILURES as error:
            failure = self._failed(name, error, limit)
        else:
            if socket.protocol == protocol:
                return socket
            await socket.close()
            failure = NodeAnswerError(name, 101, f"the web socket does not speak {protocol!r}")
        raise failure

    async def pause(self, duration: float) -> None:
        """Wait, at most until `interrupt`."""
        with contextlib.suppress(TimeoutError):
            async with self._limited(duration):
                await asyncio.Event().wait()

    def interrupt(self) -> None:
        """End all calls under way with `NodeUnavailable` and refuse new ones, except parting ones."""
        self._closing = True
        self._expire(parting=False)

    async def close(self) -> None:
        """End everything and drop all connections. Harmless when called twice."""
        self._closing = self._closed = True
        self._expire(parting=False)
        self._expire(parting=True)
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self, name: str, parting: bool) -> aiohttp.ClientSession:
        if self._closed or (self._closing and not parting):
            raise NodeUnavailable(name, None, "this client was closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # No limit: long polls hold a connection each, and with aiohttp's default pool of 100
                # (measured) commands wait behind them until a poll ends.
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                auto_decompress=False,
            )
        return self._session

    def _url(self, target: str) -> yarl.URL:
        return yarl.URL(self._base + target, encoded=True)

    @contextlib.asynccontextmanager
    async def _limited(self, limit: float, parting: bool = False) -> AsyncIterator[None]:
        async with asyncio.timeout(limit) as scope:
            self._underway[scope] = parting
            try:
                yield
            finally:
                del self._underway[scope]

    def _expire(self, *, parting: bool) -> None:
        for scope, is_parting in self._underway.items():
            if is_parting is parting and not scope.expired():
                scope.reschedule(0.0)

    def _failed(self, name: str, error: Exception, limit: float) -> NodeError:
        if self._closed or (self._closing and isinstance(error, TimeoutError)):
            return NodeUnavailable(name, None, "this client was closed meanwhile")
        if isinstance(error, aiohttp.ClientResponseError):
            # Raised only for what is no HTTP. It holds the request's headers, so it is no `__cause__`.
            return NodeAnswerError(name, None, bounded(f"this is no HTTP: {error.message}"))
        if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
            message = f"nothing within {limit:g} s"
        else:
            message = str(error) or type(error).__name__
        unsent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        failure = NodeUnavailable(name, None, bounded(message), unsent=unsent)
        failure.__cause__ = error
        return failure


def _base_of(address: NodeAddress) -> str:
    """The address without a trailing slash. Raises `ConfigError` where it is no plain base URL."""
    parts = urlsplit(address.url)
    try:
        valid = bool(yarl.URL(address.url).host)
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or "@" in parts.netloc:
        # The URL itself may hold a password here, so it is not shown.
        raise ConfigError(
            "the node's address must be scheme, host, port and perhaps a path, "
            "without user, query and fragment"
        )
    return address.url.rstrip("/")
