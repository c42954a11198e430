"""The embedded node, ready to use: a node with its REST API on a loopback port."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

from aiohttp import web

from shem.clock import Clock, SystemClock
from shem.config import NodeAddress
from shem.devnet.fetcher import HttpFetcher
from shem.devnet.node import Node
from shem.devnet.runtime.base import RuntimeFactory
from shem.devnet.runtime.null import NullFactory
from shem.devnet.runtime.sandbox import SandboxFactory
from shem.devnet.server import make_app
from shem.devnet.settings import ProviderSettings, Timings
from shem.errors import ConfigError
from shem.log import get_logger, redactor

#: Built-in providers unless told otherwise. Each keeps one agreement at a time, as on the real network.
DEFAULT_PROVIDERS: Final = 8
HOST: Final = "127.0.0.1"
#: Longest time to let running requests end when the node stops, in seconds.
_GRACE: Final = 0.5
#: Keep-alive of idle connections; long polls of clients last up to a minute (contract 5.3, gotcha 24).
_KEEP_ALIVE: Final = 75.0

_log = get_logger("devnet")
T = TypeVar("T")


class Devnet:
    """An embedded node. ``async with Devnet() as address:`` yields where it listens and how to be let in.

    Args:
        providers: how many built-in providers, or the settings of each.
        images: image directories by hash, for the sandbox.
        strict_images: whether an unknown image hash fails the deploy, as on a real provider.
        runtime: ``sandbox`` really runs commands; ``null`` only pretends to. Or a factory of one's own, which
            is then not closed here.
        port: 0 for any free one.
        app_key: the key that requests must carry; by default a new secret.

    It listens on 127.0.0.1 only. It can be started again after it was stopped, as a new node.
    """

    def __init__(
        self,
        *,
        providers: int | Sequence[ProviderSettings] = DEFAULT_PROVIDERS,
        images: Mapping[str, Path] | None = None,
        strict_images: bool = False,
        runtime: str | RuntimeFactory = "sandbox",
        port: int = 0,
        app_key: str | None = None,
        timings: Timings | None = None,
        clock: Clock | None = None,
    ) -> None:
        if isinstance(runtime, str) and runtime not in ("sandbox", "null"):
            raise ConfigError(f"runtime {runtime!r} is not known; use 'sandbox' or 'null'")
        self._providers, self._images, self._strict_images = providers, dict(images or {}), strict_images
        self._runtime, self._port, self._app_key = runtime, port, app_key
        self._timings, self._clock = timings, clock or SystemClock()
        self._node: Node | None = None
        self._address: NodeAddress | None = None
        self._isolation: str | None = None
        self._to_close: list[Callable[[], Awaitable[Any]]] = []

    @property
    def address(self) -> NodeAddress:
        """Where it listens. Raises `RuntimeError` unless it is started."""
        return self._require(self._address)

    @property
    def node(self) -> Node:
        """The node behind the REST API. Raises `RuntimeError` unless it is started."""
        return self._require(self._node)

    @property
    def isolation(self) -> str:
        """What keeps activities apart from the host, in one line. Raises `RuntimeError` unless started."""
        return self._require(self._isolation)

    async def start(self) -> NodeAddress:
        """Start node and server. Raises `ConfigError` where the port is taken or cannot be used."""
        if self._address is not None:
            return self._address
        try:
            return await self._start()
        except BaseException:
            # Whatever was opened before the failure must not outlive it.
            await self.stop()
            raise

    async def stop(self) -> None:
        """Release everything. Ordered, bounded, and harmless when called twice."""
        self._address = self._node = self._isolation = None
        while self._to_close:
            step = self._to_close.pop()
            try:
                await step()
            # One step that fails must not keep the next ones from releasing what is theirs.
            except Exception:
                _log.error("stop_step_failed", step=getattr(step, "__qualname__", str(step)), exc_info=True)

    async def __aenter__(self) -> NodeAddress:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _start(self) -> NodeAddress:
        runtimes = self._make_runtimes()
        fetcher = HttpFetcher()
        self._to_close.append(fetcher.aclose)
        node = Node(
            runtimes,
            providers=self._providers,
            timings=self._timings,
            clock=self._clock,
            fetcher=fetcher,
        )
        key = self._app_key or self._clock.secret()
        redactor.learn(key)
        runner = web.AppRunner(
            make_app(node, {key: node.identity}),
            handle_signals=False,
            access_log=None,
            # A poll whose client has gone must not take events that the client's next poll should get.
            handler_cancellation=True,
            shutdown_timeout=_GRACE,
            keepalive_timeout=_KEEP_ALIVE,
        )
        self._to_close.append(runner.cleanup)
        await runner.setup()
        # Ended first: that wakes the polls and closes the sockets, so that the server need not wait for them.
        self._to_close.append(node.aclose)
        port = await self._listen(runner)
        await node.start()
        self._node, self._isolation = node, runtimes.isolation
        self._address = NodeAddress(f"http://{HOST}:{port}", key)
        _log.info("devnet_started", url=self._address.url, providers=len(node.providers))
        return self._address

    async def _listen(self, runner: web.AppRunner) -> int:
        try:
            await web.TCPSite(runner, HOST, self._port).start()
        except (OSError, OverflowError) as error:
            if getattr(error, "errno", None) == errno.EADDRINUSE:
                raise ConfigError(
                    f"port {self._port} on {HOST} is taken, perhaps by a yagna daemon or another devnet; "
                    f"stop that one, or choose another port (0 takes any free one)"
                ) from error
            raise ConfigError(f"cannot listen on {HOST}, port {self._port}: {error}") from error
        port = runner.addresses[0][1]
        assert isinstance(port, int)
        return port

    def _make_runtimes(self) -> RuntimeFactory:
        if not isinstance(self._runtime, str):
            return self._runtime
        if self._runtime == "null":
            return NullFactory()
        sandboxes = SandboxFactory(self._images, self._strict_images, clock=self._clock)
        self._to_close.append(sandboxes.aclose)
        return sandboxes

    def _require(self, value: T | None) -> T:
        if value is None:
            raise RuntimeError("the devnet is not started; use `async with Devnet()` or call start() first")
        return value
