"""Probes: the service's own idea of being up, ready and well.

A `Probe` is a value: what to ask, how often, and how many answers decide. What follows from the answers is
the business of `shem.service.probing`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, get_args

from shem.errors import ConfigError
from shem.script import Script

T = TypeVar("T")

Kind: TypeAlias = Literal["startup", "readiness", "liveness"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: Asked of the service object: true, or nothing at all, is well; false or an exception is not.
Check: TypeAlias = Callable[[Any], Awaitable[bool | None] | bool | None]
#: Host and port.
Address: TypeAlias = tuple[str, int]
#: A value, or how to learn it from the service object; None where it is not known yet.
Known: TypeAlias = T | Callable[[Any], Awaitable[T | None] | T | None]


class Reach(Protocol):
    """How the requestor reaches a service over the network."""

    async def connect(self, host: str, port: int) -> None:
        """Open a TCP connection, and close it. Raises whatever keeps it from being opened."""

    async def status(self, url: str) -> int:
        """The HTTP status that a GET is answered with. Raises whatever keeps it from being answered."""


class Means(Protocol):
    """What asking takes."""

    @property
    def reach(self) -> Reach:
        """How the service is reached over the network."""

    async def execute(self, script: Script) -> None:
        """Run a script on the provider, beside those of the handlers. Raises its error, if any."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe. Exactly one of the four ways of asking is given:

    * `check`: a callable, sync or async, that gets the service object. False, or an exception, is a bad
      answer; anything else, None included, is a good one. A sync one must not block: it holds up the program.
    * `command`: program and arguments, run on the provider; it must exit with 0.
    * `tcp`: host and port; a connection must be accepted.
    * `http`: a URL; a GET of it must be answered with a status within `status`, both ends included.
      Redirects are answers, too; they are not followed.

    Addresses are values, or callables that make one of the service object; they are reached from here.

    What a bad answer leads to depends on the kind:

    * ``startup``: asked while Starting, once `start()` is exhausted; the instance is Running when it passes.
      Where it fails, the start has failed, and is tried again on another provider as other failures of
      the provider are. `start_timeout` bounds both together.
    * ``readiness``: asked while Running; decides `Service.is_ready`, and nothing else.
    * ``liveness``: asked while Running; where it fails, the instance gets a ServiceError, and so `shutdown`
      runs.

    Attributes:
        period: seconds from the beginning of one check to that of the next.
        timeout: seconds a check may take; no answer by then is a bad one.
        failures: so many bad answers in a row decide that it fails.
        successes: so many good ones in a row decide that it passes; 1 for liveness, which passes until it
            fails.
        initial_delay: seconds before the first check.
    """

    check: Check | None = None
    command: Sequence[str] = ()
    kind: Kind = "liveness"
    tcp: Known[Address] | None = None
    http: Known[str] | None = None
    status: tuple[int, int] = (200, 399)
    period: float = 10.0
    timeout: float = 5.0
    failures: int = 3
    successes: int = 1
    initial_delay: float = 0.0

    def __post_init__(self) -> None:
        ways = (self.check is not None, bool(self.command), self.tcp is not None, self.http is not None)
        if sum(ways) != 1:
            raise ConfigError(
                "Probe: give either a check (a callable), a command (program and arguments), tcp (host and "
                f"port) or http (a URL), and only one of them, not {sum(ways)}"
            )
        if self.kind not in KINDS:
            raise ConfigError(f"Probe: kind={self.kind!r} is none of {', '.join(map(repr, KINDS))}")
        if self.check is not None and not callable(self.check):
            raise ConfigError(f"Probe: check must be callable with the service object, not {self.check!r}")
        if isinstance(self.command, str):
            raise ConfigError(
                f"Probe: command must be a sequence of strings, not the string {self.command!r}"
            )
        if self.tcp is not None and not callable(self.tcp):
            _need_address(self.tcp)
        if self.http is not None and not callable(self.http):
            _need_url(self.http)
        if not self.status[0] <= self.status[1]:
            raise ConfigError(f"Probe: status={self.status!r} holds no status; give the least, the greatest")
        self._check_numbers()

    def _check_numbers(self) -> None:
        if not (self.period > 0 and self.timeout > 0 and self.failures >= 1):
            raise ConfigError("Probe: period and timeout must be more than 0 s, failures at least 1")
        if not self.initial_delay >= 0:
            raise ConfigError(f"Probe: initial_delay must be 0 s or more, not {self.initial_delay!r}")
        if self.successes < 1 or (self.kind == "liveness" and self.successes != 1):
            raise ConfigError(
                f"Probe: successes must be at least 1, and 1 for liveness, not {self.successes!r}"
            )

    async def ask(self, service: object, means: Means) -> str | None:
        """What is wrong, or None where all is well. Lets the exception of a check, or of its way, through.

        It takes as long as it takes: `timeout` bounds it only where whoever asks sees to that.
        """
        if self.check is not None:
            answer = self.check(service)
            if inspect.isawaitable(answer):
                answer = await answer
            return "the check said no" if answer is False else None
        if self.tcp is not None:
            address = await _known(self.tcp, service)
            if address is None:
                return "the address is not known yet"
            await means.reach.connect(*_need_address(address))
            return None
        if self.http is not None:
            url = await _known(self.http, service)
            if url is None:
                return "the URL is not known yet"
            status = await means.reach.status(_need_url(url))
            return None if self.status[0] <= status <= self.status[1] else f"{url} answered {status}"
        script = Script(timeout=self.timeout)
        script.run(*self.command)
        script.mark_sent()
        await means.execute(script)
        return None


async def _known(given: Any, service: object) -> Any:
    known = given(service) if callable(given) else given
    return await known if inspect.isawaitable(known) else known


def _need_address(address: object) -> Address:
    match address:
        case (str() as host, int() as port) if host and not isinstance(port, bool) and 0 < port < 65536:
            return host, port
    raise ConfigError(f"Probe: tcp must be host and port, such as ('192.168.0.2', 80), not {address!r}")


def _need_url(url: object) -> str:
    if isinstance(url, str) and url.startswith(("http://", "https://")):
        return url
    raise ConfigError(f"Probe: http must be a URL such as 'http://192.168.0.2/health', not {url!r}")


def probes_of(given: object) -> tuple[Probe, ...]:
    """The probes that an argument names: none, one, or several. Raises `ConfigError` for anything else."""
    if given is None:
        return ()
    if isinstance(given, Probe):
        return (given,)
    probes = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    for one in probes:
        if not isinstance(one, Probe):
            raise ConfigError(f"probe must be a shem.Probe, or several in a sequence, not {one!r}")
    return probes
