"""Time, chance and new ids come from a `Clock` that is passed in, and from nowhere else.

Computed from the source: names are followed through the file's own imports, so that no alias hides a call.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "shem"

#: Files, or folders with a slash at the end, that may, and why.
EXCEPTIONS = {
    "clock.py": "it is the one source",
    "devnet/runtime/init/": "a program of its own, inside the sandbox, which no clock can be passed to",
    "testing/sim.py": "the simulated clock, whose chance is a seeded generator",
    "testing/steady.py": "it makes the chance that a user's own code draws follow from a seed",
}

WHOLE_MODULES = ("random", "secrets", "uuid")
READINGS = {
    *(f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")),
    "datetime.date.today",
    *(f"time.{name}" for name in ("time", "monotonic", "perf_counter", "process_time")),
    *(f"time.{name}_ns" for name in ("time", "monotonic", "perf_counter", "process_time")),
    *(f"time.{name}" for name in ("localtime", "gmtime", "ctime", "clock_gettime", "clock_gettime_ns")),
    "os.urandom",
    "os.getrandom",
}


def uses(source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything in a file that reads a clock or draws chance on its own."""
    tree = ast.parse(source)
    meaning: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                meaning[alias.asname or top] = alias.name if alias.asname else top
                if top in WHOLE_MODULES:
                    yield node.lineno, top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                meaning[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                if node.module in WHOLE_MODULES:
                    yield node.lineno, f"{node.module}.{alias.name}"
                elif f"{node.module}.{alias.name}" in READINGS:
                    yield node.lineno, f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = full_name(node, meaning)
            if name in READINGS:
                yield node.lineno, name


def full_name(node: ast.expr, meaning: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return meaning.get(node.id, "")
    if isinstance(node, ast.Attribute):
        before = full_name(node.value, meaning)
        return f"{before}.{node.attr}" if before else ""
    return ""


def exception_for(name: str) -> str | None:
    return next(
        (key for key in EXCEPTIONS if name == key or (key.endswith("/") and name.startswith(key))), None
    )


def found_in_source() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        for line, what in uses(path.read_text(encoding="utf-8")):
            found.setdefault(name, []).append(f"src/shem/{name}:{line}: uses {what}; take it from a Clock")
    return found


def test_nothing_but_the_clock_knows_the_time_or_makes_ids() -> None:
    bad = [line for name, lines in found_in_source().items() if exception_for(name) is None for line in lines]
    assert not bad, "\n" + "\n".join(bad)


def test_no_exception_has_become_needless() -> None:
    assert {exception_for(name) for name in found_in_source()} - {None} == set(EXCEPTIONS)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import uuid", "uuid"),
        ("from secrets import token_hex as t", "secrets.token_hex"),
        ("def f():\n    import random", "random"),
        ("import time\ntime.monotonic()", "time.monotonic"),
        ("import time as t\nx = t.perf_counter_ns", "time.perf_counter_ns"),
        ("from time import time", "time.time"),
        ("from datetime import datetime\ndatetime.now(UTC)", "datetime.datetime.now"),
        ("from datetime import datetime as d\nd.utcnow()", "datetime.datetime.utcnow"),
        ("import datetime\ndatetime.datetime.now()", "datetime.datetime.now"),
        ("import os\nos.urandom(8)", "os.urandom"),
        ("import os.path\nos.urandom(8)", "os.urandom"),
    ],
)
def test_a_reading_of_the_clock_is_found_under_any_name(source: str, what: str) -> None:
    assert [name for _, name in uses(source)] == [what]


@pytest.mark.parametrize(
    "source",
    [
        "def f(clock):\n    return clock.now(), clock.random(), clock.monotonic()",
        "from datetime import datetime\ndatetime.fromisoformat('2026-01-01')",
        "import time\ntime.sleep",
        "import asyncio\nasyncio.get_running_loop().time()",
        "random = 4\nrandom.bit_length()",
    ],
)
def test_what_reads_no_clock_is_left_alone(source: str) -> None:
    assert list(uses(source)) == []
