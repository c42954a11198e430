"""Decisions about failures, as values: when to try again, where, and when to give up."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from shem.clock import Clock
from shem.errors import Blame, ConfigError, ServiceDefinitionError, blame_of
from shem.ids import NodeId


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """What happens after a failure.

    Two things are decided by it. A *start* that fails is tried again on another provider (if
    `respawn_unstarted_instances` allows it at all); and a *slot* whose instance failed after it had been
    Running is filled with a new instance, as `on` says. Both count into the same limit, and both wait
    `backoff` seconds first, twice as long each time up to `max_backoff`, more or less a share of `jitter`.

    Attributes:
        on: when a slot is filled again: ``never``, after a ``failure``, or ``always``, that is also after
            `run()` came to its end. After a stop by the user it never is.
        attempts: so many times it is tried again within `per` seconds; then the slot is given up, for a
            stated reason. Offers are searched for so many times in a row.
        where: ``other`` avoids the provider that failed for `penalty` seconds, ``any`` does not.
        user_errors: whether errors of the service's own code count as worth another try. They do not by
            default: the same code would fail elsewhere too, at the user's cost.
    """

    on: Literal["never", "failure", "always"] = "never"
    attempts: int = 5
    per: float = 600.0
    backoff: float = 1.0
    max_backoff: float = 60.0
    jitter: float = 0.25
    where: Literal["other", "any"] = "other"
    penalty: float = 600.0
    user_errors: bool = False

    def __post_init__(self) -> None:
        if self.on not in ("never", "failure", "always"):
            raise ConfigError(f"RestartPolicy: on={self.on!r} is none of 'never', 'failure', 'always'")
        if self.where not in ("other", "any"):
            raise ConfigError(f"RestartPolicy: where={self.where!r} is none of 'other', 'any'")
        for name in ("per", "backoff", "max_backoff", "penalty"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"RestartPolicy: {name} must be 0 s or more, not {getattr(self, name)!r}")
        if self.attempts < 1 or not 0 <= self.jitter <= 1:
            raise ConfigError("RestartPolicy: attempts must be at least 1, and jitter between 0 and 1")

    def worth_retrying(self, error: BaseException | None) -> bool:
        """Whether a failure could end otherwise on another provider."""
        if isinstance(error, ServiceDefinitionError):
            return False
        if error is None:
            return True
        blame = blame_of(error)
        return blame in (Blame.PROVIDER, Blame.INFRASTRUCTURE) or (blame is Blame.USER and self.user_errors)

    def pause(self, failures: int, clock: Clock) -> float:
        """Seconds to wait after so many failures in a row (1 or more)."""
        plain = min(self.max_backoff, self.backoff * 2.0 ** min(failures - 1, 30))
        return plain * (1 + self.jitter * (2 * clock.random() - 1))


class Attempts:
    """The tries of one slot, against its policy's limit."""

    def __init__(self, policy: RestartPolicy, clock: Clock) -> None:
        self._policy, self._clock = policy, clock
        self._failed_at: deque[float] = deque()

    @property
    def failures(self) -> int:
        """Failures within the policy's period."""
        horizon = self._clock.monotonic() - self._policy.per
        return sum(1 for moment in self._failed_at if moment >= horizon)

    @property
    def left(self) -> bool:
        """Whether another try is within the limit."""
        return self.failures < self._policy.attempts

    def failed(self) -> None:
        """A try has failed."""
        self._failed_at.append(self._clock.monotonic())
        while len(self._failed_at) > self._policy.attempts:
            self._failed_at.popleft()

    def pause(self) -> float:
        """Seconds to wait before the next try."""
        return self._policy.pause(max(1, self.failures), self._clock)


class PenaltyBox:
    """Providers that failed lately, and are avoided for a while."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds, self._clock = seconds, clock
        self._until: dict[NodeId, float] = {}

    def put(self, provider: NodeId) -> None:
        """Avoid a provider from now on."""
        if self._seconds > 0:
            self._until[provider] = self._clock.monotonic() + self._seconds

    def __contains__(self, provider: object) -> bool:
        until = self._until.get(provider)  # type: ignore[call-overload]  # any object may be asked for
        return until is not None and until > self._clock.monotonic()

    def inside(self) -> frozenset[NodeId]:
        """All providers that are avoided now."""
        return frozenset(provider for provider in self._until if provider in self)
