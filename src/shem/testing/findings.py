"""What a life shows about the service that lived it: mistakes of its handlers, and of shem.

`symptoms_of` reads one life; which plan shows a symptom best, and whether it shows without any fault, is for
`check` to find out.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from shem.lifecycle import State
from shem.service.handlers import HANDLERS
from shem.testing.life import Life
from shem.testing.limits import Limits
from shem.testing.observed import OWN_TASK, UNSIMULATED, Observer, Run

#: Virtual times are sums of floats.
_TOLERANCE: Final = 1e-6
_LOOSE_ENDS: Final = "the simulation ended with loose ends: "
_LEFT: Final = "task left behind: "
_BAD_CLOSE: Final = (
    "an error occurred during closing of asynchronous generator",
    "asynchronous generator is already running",
)


class Mistake(enum.Enum):
    """Kinds of mistakes: what each is, and what to do about it. In the order of their gravity."""

    INVARIANT = (
        "shem breaks a rule of its own",
        "that is a bug in shem; please report it with the replay line",
    )
    UNSCRIPTED = (
        "a handler cannot digest a command's empty output",
        "script the command: with a `fake_provider` method of the service, or with --respond",
    )
    NEVER_RUNNING = (
        "the service never gets to Running, though nothing goes wrong",
        "see below what became of it; nothing else was tried",
    )
    NO_SCRIPT = (
        "a handler yields something that is no script",
        "make one with `script = self._ctx.new_script()`, add commands, and yield it",
    )
    RAISES = (
        "a handler raises an error of its own",
        "let shem's errors through and handle the rest; an error of its own is not tried on other providers",
    )
    UNSIMULATED = (
        "a handler does what cannot be simulated: a socket, a process, or a thread that goes on",
        "put it behind a method that a subclass for checks replaces",
    )
    SWALLOWS = (
        "a handler goes on after it has been stopped",
        "catch `Exception` at most, never everything, and yield nothing in a `finally` block",
    )
    OVERRUNS = (
        "a handler takes longer than its time budget",
        "make it quicker, or give it more time (`stop_timeout`, `start_timeout`); shem cuts it short",
    )
    BLOCKS = (
        "a handler blocks the loop",
        "await (`asyncio.sleep`, an async client, `asyncio.to_thread`); meanwhile nothing else goes on",
    )
    FORGETS_AWAIT = (
        "a coroutine is never awaited, and so does nothing",
        "write `await` before the call, or make a task of it",
    )
    SPINS = (
        "something turns in a circle without waiting",
        "wait for an event, or for time to pass, in the loop that never ends",
    )
    LEAVES_TASK = (
        "a task that the service began outlives it",
        "cancel it in a `finally` block, or in on_terminated(); shutdown() does not run without an activity",
    )
    UNCLEAN_RETRY = (
        "start() does not repeat itself on another provider",
        "forget in reset() what a failed start has left in the object",
    )

    @property
    def summary(self) -> str:
        """What it is."""
        return self.value[0]

    @property
    def advice(self) -> str:
        """What to do about it."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Symptom:
    """A mistake as one life shows it.

    Attributes:
        where: the handler, or the invariant of shem's.
        what: what tells it apart from others of its kind there, such as the type of an error.
        place: ``file:line`` in the service's code, if it is known.
        said: what happened, in a sentence.
        instance: whose handler it was, by id.
    """

    mistake: Mistake
    where: str
    what: str
    place: str
    said: str
    instance: str = ""

    @property
    def key(self) -> tuple[Mistake, str, str, str]:
        """What makes two symptoms one finding."""
        # Where a handler happens to be when its time is up, makes no difference.
        place = "" if self.mistake is Mistake.OVERRUNS else self.place
        return self.mistake, self.where, self.what, place


@dataclass(frozen=True, slots=True)
class FirstStart:
    """What a start sends to its provider where nothing goes wrong; None where that is not always the same."""

    commands: tuple[str, ...] | None = None


def symptoms_of(life: Life, observer: Observer, limits: Limits, usual: FirstStart) -> tuple[Symptom, ...]:
    """Everything that a life shows, each symptom once."""
    found = (
        *(one for run in observer.runs for one in _of_run(run, life, limits, usual)),
        *_of_tasks(life, observer),
        *(
            Symptom(Mistake.FORGETS_AWAIT, "", name, place, f"{name}() is called, and never awaited")
            for name, place in observer.forgotten
        ),
        *_of_problems(life, observer),
    )
    return tuple({symptom.key: symptom for symptom in reversed(found)}.values())[::-1]


# --- handlers


def _of_run(run: Run, life: Life, limits: Limits, usual: FirstStart) -> Iterator[Symptom]:
    name, whose = f"{run.handler}()", run.whose

    def symptom(mistake: Mistake, what: str, said: str, place: str = run.place) -> Symptom:
        return Symptom(mistake, run.handler, what, place, said, whose)

    if run.wrong:
        yield symptom(Mistake.NO_SCRIPT, run.wrong, f"{name} yields {run.wrong}")
    if run.error is not None:
        kind = Mistake.UNSIMULATED if _is_unsimulated(run) else Mistake.RAISES
        what = "the clean-up of " if run.in_cleanup else ""
        yield symptom(kind, type(run.error).__name__, f"{what}{name} raises {_told(run.error)}")
    yield from _of_time(run, name)
    if _goes_on(run, life, limits):
        said = "yields another script" if run.went_on else "is still at work"
        yield symptom(Mistake.SWALLOWS, "", f"{name} {said} after it has been stopped")
    else:
        for what, said in _overruns(run, limits):
            yield symptom(Mistake.OVERRUNS, what, said, run.waited_at)
    if run.handler == "start" and run.number > 1 and (difference := _difference(run, usual)):
        yield symptom(Mistake.UNCLEAN_RETRY, "", f"the {_ORDINALS.get(run.number, 'later')} {difference}", "")


def _of_time(run: Run, name: str) -> Iterator[Symptom]:
    """What is wrong with how a run spends real time, or none at all."""
    if run.blocked:
        said = f"{name} holds up the loop for {run.blocked:.1f} s of real time"
        yield Symptom(Mistake.BLOCKS, run.handler, "", run.blocked_at, said, run.whose)
    if run.spun:
        said = f"{name} turns in a circle without waiting, and no time passes"
        yield Symptom(Mistake.SPINS, run.handler, "", run.place, said, run.whose)


def _is_unsimulated(run: Run) -> bool:
    """Whether an error is that of a loop without threads, sockets and processes."""
    if isinstance(run.error, NotImplementedError):
        return run.origin is not None and run.origin.module.startswith("asyncio.")
    said = str(run.error) if isinstance(run.error, RuntimeError) else ""
    return UNSIMULATED in said or "inside the simulation" in said


_ORDINALS: Final = {2: "second", 3: "third"}


def _goes_on(run: Run, life: Life, limits: Limits) -> bool:
    if run.went_on:
        return True
    if run.let_go_at is None:
        return False
    if run.ended_at is None:
        return life.seconds > run.let_go_at + limits.cleanup
    again = run.cancels > 1 and run.cancelled_at is not None
    return again and run.ended_at > (run.cancelled_at or 0.0) + _TOLERANCE


def _overruns(run: Run, limits: Limits) -> Iterator[tuple[str, str]]:
    name, cleanup = f"{run.handler}()", limits.budgets.cleanup
    if run.handler in HANDLERS and run.let_go_at is not None and run.ended_at is not None:
        # Once that time is over, it is cut short.
        if run.ended_at - run.let_go_at >= cleanup - _TOLERANCE:
            yield "clean-up", f"the clean-up of {name} takes longer than the {cleanup:g} s it has"
    budgets = {"start": limits.start, "shutdown": limits.stop, "reset": limits.budgets.reset}
    budget = budgets.get(run.handler, limits.budgets.hook if run.handler.startswith("on_") else None)
    if budget is not None and run.own >= budget - _TOLERANCE:
        yield "budget", f"{name} takes longer than the {budget:g} s it has, its scripts not counted"


def _difference(run: Run, usual: FirstStart) -> str:
    """How a start differs from the first one, as far as nothing was wrong with its scripts."""
    if usual.commands is None:
        return ""
    known = 0
    for script in run.scripts:
        known += len(script.commands)
        if script.results.error is not None:
            break
    sent = run.commands[:known]
    if run.exhausted and known == len(run.commands) < len(usual.commands):
        sent.append("nothing more")
    for number, (one, first) in enumerate(zip(sent, usual.commands, strict=False), 1):
        if one != first:
            return f"start() of an object has for command {number}: {one}; the first has: {first}"
    if len(sent) > len(usual.commands):
        return f"start() of an object goes on with: {sent[len(usual.commands)]}; the first does not"
    return ""


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


# --- tasks


def _of_tasks(life: Life, observer: Observer) -> Iterator[Symptom]:
    left = {name for problem in life.problems for name in _left_behind(problem)}
    for begun in observer.tasks:
        name, error = f"the task of {begun.name}()", begun.run.error
        yield from _of_time(begun.run, name)
        if begun.task.get_name() in left:
            said = f"{name} is still at work when everything has ended"
            yield Symptom(Mistake.LEAVES_TASK, OWN_TASK, begun.name, begun.place, said)
        elif error is not None and getattr(begun.task, "_log_traceback", False):
            said = f"{name} raises {_told(error)}, and nobody hears of it"
            yield Symptom(Mistake.RAISES, OWN_TASK, type(error).__name__, begun.run.place, said)


def _left_behind(problem: str) -> Iterator[str]:
    """Names of the tasks that a problem says were left behind."""
    _before, found, ends = problem.partition(_LOOSE_ENDS)
    if found:
        yield from (end.removeprefix(_LEFT) for end in ends.split("; ") if end.startswith(_LEFT))


# --- shem itself


def _of_problems(life: Life, observer: Observer) -> Iterator[Symptom]:
    for problem in life.problems:
        if not _is_the_services(problem, observer):
            yield Symptom(Mistake.INVARIANT, problem.partition(": ")[0], "", "", problem)


def _is_the_services(problem: str, observer: Observer) -> bool:
    """Whether something that was noticed is a loose end of the service's own, which is reported as such."""
    stuck = [run for run in observer.runs if run.ended_at is None or run.went_on or run.spun]
    if any(sign in problem for sign in _BAD_CLOSE):
        return bool(stuck)
    _before, found, ends = problem.partition(_LOOSE_ENDS)
    if not found:
        return False
    own = {begun.task.get_name() for begun in observer.tasks}
    own |= {f"{run.whose} {run.handler}()" for run in stuck}
    own |= {f"{type(run.service).__name__}.{run.handler} of instance {run.whose}" for run in stuck}
    return all(end.startswith(_LEFT) and end.removeprefix(_LEFT) in own for end in ends.split("; "))


def never_ran(life: Life) -> Symptom | None:
    """What is wrong where an instance never got to Running, though nothing was."""
    for instance in life.instances:
        if not any(record.dest is State.RUNNING for record in instance.records):
            last = instance.records[-1] if instance.records else "it stayed pending"
            said = f"it does not get to Running: {last}"
            return Symptom(Mistake.NEVER_RUNNING, "", "", "", " ".join(said.split()), instance.id)
    return None


def heaviest_first(symptoms: Sequence[Symptom]) -> list[Symptom]:
    """In the order of the kinds, which is that of their gravity."""
    order = list(Mistake)
    return sorted(symptoms, key=lambda one: order.index(one.mistake))
