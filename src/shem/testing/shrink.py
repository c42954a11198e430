"""Making a failing plan as small as it can be while it still fails.

What counts is how much a person has to read: first the number of things that happen, then those whose moment
tells a person nothing, then what else differs from its default, and then how long the text and how large the
numbers are. Every step makes the plan less by that measure, so that shrinking ends, and never gives back more
than it was given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, Final, TypeVar

from shem.testing.link import ANY
from shem.testing.plan import Action, Fault, HandlerFault, Plan

T = TypeVar("T")

#: Plans that are tried at most.
TRIES: Final = 250

#: Parts of a plan of which the fewer are the better.
_PARTS: Final = ("faults", "actions", "handlers", "deviations")
_DEFAULT: Final = Plan()


def size(plan: Plan) -> tuple[float, ...]:
    """How much there is to a plan; smaller is simpler."""
    changed = sum(
        getattr(plan, one.name) != getattr(_DEFAULT, one.name)
        for one in fields(plan)
        if one.name not in _PARTS
    )
    unclear = len(plan.deviations) + sum(one.at_step is not None for one in plan.actions)
    items = [item for part in _PARTS for item in getattr(plan, part) if part != "deviations"]
    said = sum(len(repr(item)) for item in items) + len(repr(plan.deviations))
    numbers = [number for item in items for number in _numbers(item)]
    digits = sum(len(f"{number:g}") for number in numbers)
    total = sum(numbers) + sum(map(sum, plan.deviations)) + sum(plan.latencies)
    return (plan.weight, unclear, changed, plan.instances + plan.providers, digits, said, total)


def _numbers(item: Any) -> Iterator[float]:
    for one in fields(item):
        value = getattr(item, one.name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield value


def shrink(plan: Plan, fails: Callable[[Plan], bool], tries: int = TRIES) -> Plan:
    """The smallest plan found for which `fails` is true, as it is for `plan`. Asks at most `tries` times."""
    tried = {plan}
    while True:
        better = None
        for candidate in sorted(set(_simpler(plan)) - tried, key=lambda one: (size(one), repr(one))):
            if size(candidate) >= size(plan) or not tries:
                break
            tries -= 1
            tried.add(candidate)
            if fails(candidate):
                better = candidate
                break
        if better is None:
            return plan
        plan = better


def _simpler(plan: Plan) -> Iterator[Plan]:
    """Plans that are one step simpler."""
    yield _DEFAULT
    for part in _PARTS:
        items = getattr(plan, part)
        for some in _fewer(items):
            yield _with(plan, part, some)
        if part != "deviations":
            for place, item in enumerate(items):
                for simple in _simpler_item(item):
                    yield _with(plan, part, (*items[:place], simple, *items[place + 1 :]))
    for one in fields(plan):
        if one.name not in _PARTS and getattr(plan, one.name) != getattr(_DEFAULT, one.name):
            yield _with(plan, one.name, getattr(_DEFAULT, one.name))
    for name in ("instances", "providers", "rounds", "seed"):
        yield from _with_less(plan, name, getattr(plan, name))
    for place, (choice, line) in enumerate(plan.deviations):
        for less in _less(choice):
            pairs = (*plan.deviations[:place], (int(less), line), *plan.deviations[place + 1 :])
            yield replace(plan, deviations=tuple(sorted(dict(pairs).items())))


def _with(item: T, name: str, value: object) -> T:
    changed: T = replace(item, **{name: value})  # type: ignore[type-var]  # a plan, or a part of one
    return changed


def _fewer(items: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if len(items) > 1:
        yield ()
        half = len(items) // 2
        yield items[:half]
        yield items[half:]
    for place in range(len(items)):
        yield (*items[:place], *items[place + 1 :])


def _simpler_item(item: Fault | Action | HandlerFault) -> Iterator[Any]:
    """The same fault or action, with plainer details."""
    for one in fields(item):
        value = getattr(item, one.name)
        if one.default is not dataclasses.MISSING and value != one.default and one.name not in _WHEN:
            yield _with(item, one.name, one.default)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield from _with_less(item, one.name, value)
    if isinstance(item, Fault) and item.call != ANY:
        yield replace(item, call=ANY)


_WHEN: Final = ("at", "at_call", "at_step")


def _with_less(item: Any, name: str, value: float) -> Iterator[Any]:
    for less in _less(value):
        yield _with(item, name, less)


def _less(number: float) -> Iterator[float]:
    """Smaller or rounder numbers of the same type, and none below the least that makes sense."""
    if isinstance(number, int):
        yield from (less for less in (1, number // 2, number - number // 4, number - 1) if 1 <= less < number)
        return
    yield from (0.0, *(number * share for share in (0.5, 0.75, 0.9)))
    shares = (0.5, 0.75, 0.9, 1)
    yield from (float(round(number * share, digits)) for share in shares for digits in (-1, 0, 1))
