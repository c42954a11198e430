"""The two searches of the suite, done once and asked by several tests, and the line that sums them up."""

from __future__ import annotations

import os
from itertools import chain

import pytest

from shem.testing.drive import drive
from shem.testing.grid import BASE, Combinations, landmarks, singles, spread
from shem.testing.life import Life
from shem.testing.search import Summary, search
from shem.testing.soak import random_search

#: As many lives as `make test` takes; more of them with SHEM_COMBINATIONS and SHEM_PLANS.
COMBINATIONS = int(os.environ.get("SHEM_COMBINATIONS", "4600"))
RANDOM_PLANS = int(os.environ.get("SHEM_PLANS", "1000"))
PROCESSES = 2

SUMMARIES = pytest.StashKey[dict[str, Summary]]()


def noted(config: pytest.Config, name: str, summary: Summary) -> Summary:
    config.stash.setdefault(SUMMARIES, {})[name] = summary
    return summary


@pytest.fixture(scope="session")
def base_life() -> Life:
    return drive(BASE, count_choices=True)


@pytest.fixture(scope="session")
def exhaustive(base_life: Life, pytestconfig: pytest.Config) -> Summary:
    plans = chain(singles(base_life), landmarks(), spread(Combinations(base_life), COMBINATIONS))
    return noted(pytestconfig, "exhaustive", search(plans, PROCESSES))


@pytest.fixture(scope="session")
def at_random(pytestconfig: pytest.Config) -> Summary:
    return noted(pytestconfig, "random", random_search(RANDOM_PLANS, processes=PROCESSES))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    summaries = config.stash.get(SUMMARIES, {})
    if not summaries:
        return
    together = Summary()
    terminalreporter.section("simulated lives")
    for name, summary in summaries.items():
        terminalreporter.write_line(f"{name}: {summary}")
        together.merge(summary)
    terminalreporter.write_line(f"together: {together}")
