"""Searching at random until there is an answer or no time left: ``python -m shem.testing.soak``.

Plans are drawn by hypothesis in several processes, batch by batch, each batch with a seed of its own. What
fails is shrunk, told as a story, and given as a replay line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Final, TextIO

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from shem.clock import SystemClock
from shem.testing.drive import drive
from shem.testing.plan import Plan
from shem.testing.search import Failure, Summary, pool, sweeping
from shem.testing.shrink import shrink
from shem.testing.strategies import plans

#: Plans that are drawn with one seed.
BATCH: Final = 250
#: Seconds between two lines about how far it is.
_REPORT_EVERY: Final = 30.0


class _Violation(Exception):
    """An invariant does not hold."""


def random_lives(number: int, first_seed: int) -> Summary:
    """Draw so many plans with one seed, drive them, and shrink what fails.

    The first failure ends it; only its simplest form is kept. The same seed gives the same summary.
    """
    summary = Summary()

    @seed(first_seed)
    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # Shrinking is done on the plan itself, which knows what there is to make simpler.
        phases=[Phase.generate],
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
    )
    @given(plans())
    def live(plan: Plan) -> None:
        if summary.violations:
            # It is shown once more what failed; once is enough.
            raise _Violation
        life = drive(plan)
        sweep()
        summary.add(life)
        if life.problems:
            raise _Violation

    with sweeping() as sweep:
        try:
            live()
        except _Violation:
            summary.failures = [simplest(summary.failures[0])]
    return summary


def simplest(failure: Failure) -> Failure:
    """The simplest plan found that breaks the invariant which this one breaks first."""
    broken = failure.problems[0].partition(":")[0]

    def fails(plan: Plan) -> bool:
        return any(problem.partition(":")[0] == broken for problem in drive(plan).problems)

    plan = shrink(failure.plan, fails)
    return Failure(plan, drive(plan).problems)


def random_search(number: int, *, first_seed: int = 0, processes: int = 2) -> Summary:
    """Drive so many random plans, in batches. The same seed gives the same summary."""
    summary = Summary()
    sizes = [min(BATCH, number - begun) for begun in range(0, number, BATCH)]
    seeds = [_seed_of(first_seed, batch) for batch in range(len(sizes))]
    with pool(processes) as executor:
        for part in executor.map(random_lives, sizes, seeds):
            summary.merge(part)
    return summary


def _seed_of(first_seed: int, batch: int) -> int:
    return first_seed * 1_000_003 + batch


def soak(
    number: int,
    seconds: float,
    *,
    first_seed: int = 0,
    processes: int = 2,
    report: Callable[[Summary, float], None] = lambda _summary, _seconds: None,
) -> Summary:
    """Drive random plans until there were so many, so much time has passed, or one has failed.

    `report` is called now and then with the summary so far and the seconds it took.
    """
    clock, summary, asked = SystemClock(), Summary(), 0
    began = reported = clock.monotonic()
    with pool(processes) as executor:
        under_way: set[Future[Summary]] = set()
        batches = 0
        while True:
            passed = clock.monotonic() - began
            more = asked < number and passed < seconds and not summary.violations
            while more and len(under_way) < 2 * processes and asked < number:
                size = min(BATCH, number - asked)
                under_way.add(executor.submit(random_lives, size, _seed_of(first_seed, batches)))
                asked, batches = asked + size, batches + 1
            if not under_way:
                return summary
            if not more:
                for future in under_way:
                    future.cancel()
            done, under_way = wait(under_way, timeout=_REPORT_EVERY, return_when=FIRST_COMPLETED)
            for future in done:
                if not future.cancelled():
                    summary.merge(future.result())
            if clock.monotonic() - reported >= _REPORT_EVERY:
                reported = clock.monotonic()
                report(summary, reported - began)


def main(arguments: Sequence[str] | None = None, out: TextIO | None = None) -> int:
    """The command line. Returns the exit code: 1 where an invariant does not hold."""
    out = out or sys.stdout
    parser = argparse.ArgumentParser(prog="python -m shem.testing.soak", description=__doc__)
    parser.add_argument("--plans", type=int, default=1_000_000, help="at most so many lives")
    parser.add_argument("--minutes", type=float, default=30.0, help="for at most so long")
    parser.add_argument("--seed", type=int, default=0, help="of the first batch")
    parser.add_argument("--processes", type=int, default=2, help="how many at a time")
    chosen = parser.parse_args(arguments)

    def report(summary: Summary, seconds: float) -> None:
        out.write(f"{seconds:6.0f} s  {summary}, {summary.plans / seconds:.0f} lives/s\n")
        out.flush()

    clock = SystemClock()
    began = clock.monotonic()
    summary = soak(
        chosen.plans,
        60 * chosen.minutes,
        first_seed=chosen.seed,
        processes=chosen.processes,
        report=report,
    )
    report(summary, max(clock.monotonic() - began, 1e-9))
    for move in summary.missing:
        out.write(f"never taken: {move.source.value} → {move.dest.value} by {move.event.value}\n")
    if summary.failures:
        out.write(f"\nthe shortest plan that fails\n\n{summary.story()}\n")
    return 1 if summary.violations else 0


if __name__ == "__main__":
    sys.exit(main())
