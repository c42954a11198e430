"""Checking a user's service: its own handlers, driven through the fault space in virtual time.

`check` first lives the undisturbed life, then plans with one thing that goes wrong, then plans with several.
For each mistake it finds the plan that tells most with least, and says what to do. Nothing is rented, no
network is touched, no process is run; what programs answer comes from the service's `fake_provider` hook or a
table (see `replies`). Files that scripts download to are put back as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Final

from shem.clock import Clock
from shem.service.service import Service
from shem.testing.findings import Mistake, Symptom, heaviest_first, never_ran
from shem.testing.indigestion import digested
from shem.testing.laboratory import LIMITS, Laboratory, became
from shem.testing.life import Life
from shem.testing.limits import Limits
from shem.testing.observed import Observer
from shem.testing.plan import Plan
from shem.testing.replies import DOWNLOAD, FETCH, HOOK, Table
from shem.testing.report import Finding, Report
from shem.testing.shrink import shrink, size
from shem.testing.space import Space, usual_plan
from shem.testing.steady import ALLOWED

#: How many plans, and for how long at most, in seconds.
PLANS, SECONDS = 500, 60.0
#: What shrinking all findings may take beyond that, as a share.
_SHRINKING: Final = 0.5
#: Of many things so many are named.
_NAMED: Final = 5


def check(
    service_class: type[Service],
    *,
    plans: int = PLANS,
    seed: int = 0,
    instances: int = 1,
    params: Mapping[str, Any] | None = None,
    table: Table | None = None,
    limits: Limits = LIMITS,
    seconds: float = SECONDS,
    allowed: float = ALLOWED,
    clock: Clock | None = None,
    progress: Callable[[int], object] | None = None,
) -> Report:
    """Drive a service through the fault space, and say what is wrong with it.

    Args:
        plans: how many lives to live, the undisturbed one included.
        seed: of those that are drawn by chance.
        instances, params: how many instances there are in each, and their constructor's arguments.
        table: what programs answer, where the service's hook does not say so, or should not.
        limits: the time budgets, in virtual seconds.
        seconds: how long the check may take, in real time; making plans smaller may take half as much again.
        allowed: how long handlers may block the loop, in seconds of real time.
        clock: real time; by default the machine's.
        progress: called after each plan with its number.

    Raises `ConfigError` or `ServiceDefinitionError` where the service cannot be run at all. Each life has a
    loop of its own, so this is not to be called inside of one that runs.
    """
    laboratory = Laboratory(
        service_class, params=params, table=table, limits=limits, allowed=allowed, clock=clock
    )
    with laboratory:
        return _Check(laboratory, plans, seed, instances, seconds, progress).report()


def replay(laboratory: Laboratory, plan: Plan, *, quiet: bool = False) -> tuple[Life, tuple[Symptom, ...]]:
    """Live through one plan again; what the service prints is shown unless `quiet`.

    Raises `ConfigError` or `ServiceDefinitionError` where the service cannot be run at all.
    """
    if laboratory.usual.commands is None:
        long, _observer = laboratory.undisturbed(plan.instances)
        if never_ran(long) is None:
            laboratory.settle(usual_plan(long))
    life, observer = laboratory.live(plan, quiet=quiet)
    symptoms = laboratory.symptoms(life, observer)
    hopeless = never_ran(life) if not plan.weight and not symptoms else None
    if not plan.weight:
        symptoms = tuple(digested(symptom, observer, laboratory.replies) for symptom in symptoms)
    return life, symptoms if hopeless is None else (hopeless,)


@dataclass(slots=True)
class _Check:
    """One check."""

    laboratory: Laboratory
    wanted: int
    seed: int
    instances: int
    seconds: float
    progress: Callable[[int], object] | None
    _plans: int = 0
    _hopeless: bool = False
    _best: dict[object, tuple[Symptom, Plan]] = field(default_factory=dict)
    _known: set[object] = field(default_factory=set)
    _state: dict[str, None] = field(default_factory=dict)
    _fleeting: list[str] = field(default_factory=list)

    def report(self) -> Report:
        laboratory, began = self.laboratory, self.laboratory.clock.monotonic()
        for _plan in self._live_through(self._space(), began + self.seconds):
            if self.progress is not None:
                self.progress(self._plans)
        deadline = laboratory.clock.monotonic() + self.seconds * _SHRINKING
        tried = [self._finding(symptom, plan, deadline) for symptom, plan in self._best.values()]
        found = [finding for finding in tried if finding is not None]
        order = heaviest_first([finding.symptom for finding in found])
        return Report(
            service=laboratory.service_class.__name__,
            findings=tuple(sorted(found, key=lambda one: order.index(one.symptom))),
            notes=tuple(self._notes()),
            plans=self._plans,
            wanted=self.wanted,
            lives=laboratory.lives,
            moves=laboratory.arrows.total(),
            arrows=frozenset(laboratory.arrows),
            seconds=laboratory.clock.monotonic() - began,
        )

    # --- the fault space

    def _space(self) -> Iterable[Plan]:
        """The plans that are worth it, after a look at the undisturbed life."""
        laboratory = self.laboratory
        life, observer = laboratory.undisturbed(self.instances)
        self._plans += 1
        symptoms = laboratory.symptoms(life, observer)
        self._known = {symptom.key for symptom in symptoms}
        symptoms = tuple(digested(symptom, observer, laboratory.replies) for symptom in symptoms)
        self._note(life.plan, symptoms)
        hopeless = never_ran(life)
        if hopeless is not None:
            # Whatever else went wrong, the life would be the same.
            self._hopeless = True
            if not symptoms:
                self._note(life.plan, (hopeless,))
            return ()
        if self._plans >= self.wanted:
            return ()
        usual = laboratory.settle(usual_plan(life))
        space = Space.around(usual, len(laboratory.replies.ran))
        return chain(space.singles(), space.samples(self.seed))

    def _live_through(self, plans: Iterable[Plan], deadline: float) -> Iterator[Plan]:
        for plan in islice(plans, max(0, self.wanted - self._plans)):
            life, observer = self.laboratory.live(plan)
            self._plans += 1
            self._note(plan, self.laboratory.symptoms(life, observer))
            self._remember_state(observer)
            yield plan
            if self.laboratory.clock.monotonic() > deadline:
                return

    def _note(self, plan: Plan, symptoms: Iterable[Symptom]) -> None:
        """Keep the lightest plan of each finding."""
        for symptom in symptoms:
            if symptom.key in self._known and plan.weight:
                continue
            best = self._best.get(symptom.key)
            if best is None or size(plan) < size(best[1]):
                self._best[symptom.key] = symptom, plan

    # --- findings

    def _finding(self, symptom: Symptom, plan: Plan, deadline: float) -> Finding | None:
        laboratory = self.laboratory

        def fails(candidate: Plan) -> bool:
            in_time = laboratory.clock.monotonic() < deadline
            return in_time and laboratory.shows(candidate, symptom.key)

        if symptom.mistake in (Mistake.UNSCRIPTED, Mistake.NEVER_RUNNING):
            life, _observer = laboratory.live(plan)
            return Finding(symptom, plan, became(life, symptom.instance))
        plan = shrink(plan, fails)
        life, observer = laboratory.live(plan)
        again = {one.key: one for one in laboratory.symptoms(life, observer)}.get(symptom.key)
        if again is not None:
            return Finding(again, plan, became(life, again.instance))
        self._fleeting.append(symptom.said)
        # What took long in real time may have done so because the machine was busy.
        return None if symptom.mistake is Mistake.BLOCKS else Finding(symptom, plan, became(life))

    # --- notes

    def _remember_state(self, observer: Observer) -> None:
        if self.laboratory.service_class.reset is not Service.reset:
            return
        for run in observer.runs:
            self._state.update(dict.fromkeys(run.left_behind))

    def _notes(self) -> Iterator[str]:
        name, replies = self.laboratory.service_class.__name__, self.laboratory.replies
        files = [line for line in replies.unscripted if line.startswith((f"{DOWNLOAD} ", f"{FETCH} "))]
        programs = [line for line in replies.unscripted if line not in files]
        how = f"a `{HOOK}` method, or --respond"
        if programs:
            yield (
                f"{len(programs)} command(s) are not scripted, and succeed with no output ({how}): "
                f"{_few(_grouped(programs))}"
            )
        if files:
            yield f"{len(files)} file(s) that nobody wrote are empty ({how}): {_few(files)}"
        if self._state:
            yield (
                f"when start() fails it leaves in the object: {_few(self._state)}; {name} has no reset() to "
                f"forget that, so a second start has to cope with it"
            )
        if self._fleeting:
            yield (
                f"was seen once, and not again in the same life (the service does not always do the same, or "
                f"the machine was busy): {_few(self._fleeting)}"
            )
        if self._hopeless:
            yield "it does not get to Running, so no other plan was tried"
        elif self._plans < self.wanted:
            yield f"time was up after {self._plans} of {self.wanted} plans"


def _grouped(lines: Iterable[str]) -> list[str]:
    """Command lines, those of one program together."""
    programs: dict[str, list[str]] = {}
    for line in lines:
        programs.setdefault(line.partition(" ")[0], []).append(line)
    return [
        same[0] if len(same) == 1 else f"{program}, with {len(same)} kinds of arguments"
        for program, same in programs.items()
    ]


def _few(names: Iterable[str]) -> str:
    some = list(names)
    return "; ".join(some[:_NAMED]) + (f"; and {len(some) - _NAMED} more" if len(some) > _NAMED else "")
