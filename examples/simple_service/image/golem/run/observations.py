"""The observations and where they are kept: one SQLite table in the out volume beside this directory.

Used by the programs in this directory; nothing here draws, prints or runs in the background.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

#: `/golem/out` where this is `/golem/run`. Links are not followed: a linked copy has a volume of its own.
OUT = Path(os.path.abspath(__file__)).parent.parent / "out"
DATABASE = OUT / "observations.db"

#: Seconds to wait for another process that is just writing.
PATIENCE = 10.0


class Observation(NamedTuple):
    """One value and when it was seen (UTC)."""

    at: datetime
    value: float


@dataclass(frozen=True)
class Summary:
    """What is said of a series. `stddev` is the population's, so that it exists for a single value too."""

    count: int
    mean: float
    stddev: float
    median: float
    first: datetime
    last: datetime


@contextmanager
def opened() -> Iterator[sqlite3.Connection]:
    """The database, with its table, made where missing."""
    OUT.mkdir(parents=True, exist_ok=True)
    # Transactions are begun by hand. The rollback journal is kept on purpose: a write-ahead log needs shared
    # memory, which the network file systems behind a provider's volumes do not have; readers and the writer
    # wait for each other instead, for milliseconds.
    database = sqlite3.connect(DATABASE, timeout=PATIENCE, isolation_level=None)
    try:
        # An activity's volume does not outlive the machine, so nothing is gained by waiting for its disk.
        database.execute("PRAGMA synchronous = OFF")
        database.execute(
            "CREATE TABLE IF NOT EXISTS observations"
            " (id INTEGER PRIMARY KEY, at TEXT NOT NULL, value REAL NOT NULL)"
        )
        yield database
    finally:
        database.close()


def add(value: float, at: datetime | None = None) -> None:
    """Keep one more observation, seen now unless told otherwise."""
    seen = at or datetime.now(UTC)
    with opened() as database:
        database.execute(
            "INSERT INTO observations (at, value) VALUES (?, ?)",
            (seen.isoformat(timespec="milliseconds"), value),
        )


def all_observations() -> list[Observation]:
    """Everything seen so far, in the order of its coming."""
    with opened() as database:
        rows = database.execute("SELECT at, value FROM observations ORDER BY id").fetchall()
    return [Observation(datetime.fromisoformat(at), value) for at, value in rows]


def summarise(series: list[Observation]) -> Summary:
    """Count, mean, spread and time span of a series that is not empty."""
    values = [one.value for one in series]
    times = [one.at for one in series]
    return Summary(
        count=len(values),
        mean=statistics.fmean(values),
        stddev=statistics.pstdev(values),
        median=statistics.median(values),
        first=min(times),
        last=max(times),
    )
