"""Where lives of one user's service are lived and looked at, one after the other."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Self

from shem.clock import Clock, SystemClock
from shem.errors import ConfigError, ShemError
from shem.golem import check_service_class
from shem.lifecycle import Event, Move, State
from shem.service.service import Service
from shem.testing.drive import HORIZON, drive
from shem.testing.findings import FirstStart, Symptom, symptoms_of
from shem.testing.life import Life
from shem.testing.limits import Limits
from shem.testing.observed import Observer
from shem.testing.plan import Plan
from shem.testing.replies import Replies, ScriptedFetcher, Table, hook_of
from shem.testing.scratch import Scratch
from shem.testing.steady import ALLOWED, Stopwatch, steady

#: Budgets that a service has unless told otherwise: those of `run_service`, as far as a life is long enough.
LIMITS: Final = Limits(start=0.6 * HORIZON, stop=60.0)


class Laboratory:
    """Where lives of one service are lived and looked at. Use it in a ``with`` statement.

    Arguments as for `shem.testing.check.check`.

    Attributes:
        replies: what its providers answer.
        usual: what the usual life has shown of how it starts.
        lives, arrows: how many lives there were, and how often each arrow of the table was taken in them.
    """

    def __init__(
        self,
        service_class: type[Service],
        *,
        params: Mapping[str, Any] | None = None,
        table: Table | None = None,
        limits: Limits = LIMITS,
        allowed: float = ALLOWED,
        clock: Clock | None = None,
    ) -> None:
        check_service_class(service_class)
        self.service_class, self.limits = service_class, limits
        self.clock = clock or SystemClock()
        self.replies = Replies(table or {}, hook_of(service_class))
        self.usual = FirstStart()
        self.lives = 0
        self.arrows: Counter[Move[State, Event]] = Counter()
        self._params = params or {}
        self._watch = Stopwatch(self.clock, allowed=allowed)
        self._scratch = Scratch()
        self._messy = False

    def __enter__(self) -> Self:
        # Handlers that would not end are thrown away with their loops; what they say to that does not count.
        self._unraisable, sys.unraisablehook = sys.unraisablehook, lambda _unraisable: None
        return self

    def __exit__(self, *_error: object) -> None:
        self._scratch.close()
        if self._messy:
            gc.collect()
        sys.unraisablehook = self._unraisable

    def live(self, plan: Plan, *, quiet: bool = True) -> tuple[Life, Observer]:
        """Live through a plan. Raises `ConfigError` where the service's hook is broken."""
        observer = Observer(self._watch, self._scratch)
        self.replies.ran.clear()
        try:
            with steady(plan.seed, quiet=quiet) as warned, self._watch.watching():
                life = drive(
                    plan,
                    observer.over(self.service_class),
                    self.replies,
                    params=self._params,
                    limits=self.limits,
                    world={
                        "unwritten": self.replies.content,
                        "fetcher": ScriptedFetcher(self.replies.fetched),
                    },
                )
        finally:
            self._scratch.restore()
        observer.note_warnings(warned)
        if self.replies.trouble is not None:
            raise self.replies.trouble
        self.lives += 1
        self._messy = self._messy or bool(life.problems) or any(run.ended_at is None for run in observer.runs)
        self.arrows.update(life.moves)
        return life, observer

    def undisturbed(self, instances: int) -> tuple[Life, Observer]:
        """A long life in which nothing goes wrong. Raises what keeps the service from being run at all."""
        life, observer = self.live(Plan(instances=instances))
        if life.refused is None:
            return life, observer
        if isinstance(life.refused, ShemError):
            raise life.refused
        raise ConfigError(f"{self.service_class.__name__} cannot be run: {life.refused!r}") from life.refused

    def settle(self, usual: Plan) -> Life:
        """The usual life; from now on starts are compared with those in it."""
        life, observer = self.live(usual)
        _life, other = self.live(replace(usual, seed=usual.seed + 1))
        first, second = _first_start(observer), _first_start(other)
        self.usual = FirstStart(first if first == second else None)
        return life

    def symptoms(self, life: Life, observer: Observer) -> tuple[Symptom, ...]:
        """What a life shows."""
        return symptoms_of(life, observer, self.limits, self.usual)

    def shows(self, plan: Plan, key: object) -> bool:
        """Whether a plan shows a certain symptom."""
        return any(symptom.key == key for symptom in self.symptoms(*self.live(plan)))


def _first_start(observer: Observer) -> tuple[str, ...] | None:
    starts = [run for run in observer.runs if run.handler == "start" and run.number == 1]
    return tuple(starts[0].commands) if starts and starts[0].exhausted else None


def became(life: Life, whose: str = "") -> str:
    """What became of an instance, as `why()` tells it; of each, where it is not known whose life matters."""
    chosen = [one for one in life.instances if one.id == whose] or life.instances
    lines = [one.why for one in chosen]
    if life.refused is not None:
        lines.append(f"the program ended with {life.refused!r}")
    return "\n".join(lines)
