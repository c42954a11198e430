#!/usr/bin/env python3
"""The service's command: keeps observations and tells about them.

--stats prints one line of JSON, --dump one line of JSON per observation, --plot draws a PNG into the out
volume and prints its path as a JSON string. Where there are no observations yet, they say so and end with
exit code 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sqlite3
import sys
from pathlib import Path

# The image's run directory is read-only, or stands for a directory of somebody's sources.
sys.dont_write_bytecode = True

import observations  # noqa: E402


class Problem(Exception):
    """What keeps a command from being done, in words for whoever called it."""


def main() -> int:
    """Do what the command line says; returns the exit code."""
    options = arguments()
    try:
        if options.init:
            with observations.opened():
                pass
        elif options.add is not None:
            observations.add(options.add)
        elif options.stats:
            print_stats()
        elif options.dump:
            dump()
        else:
            plot(options.plot)
    except Problem as problem:
        print(f"simple_service: {problem}", file=sys.stderr)
        return 1
    except (sqlite3.Error, OSError) as error:
        print(f"simple_service: {observations.DATABASE}: {error}", file=sys.stderr)
        return 1
    return 0


def arguments() -> argparse.Namespace:
    """The command line; exactly one action."""
    parser = argparse.ArgumentParser(description="Keeps observations and tells about them.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--init", action="store_true", help="make the database; keeps what is in it")
    action.add_argument("--add", type=finite, metavar="VALUE", help="add one observation, seen now")
    action.add_argument("--stats", action="store_true", help="print a summary as one line of JSON")
    action.add_argument("--dump", action="store_true", help="print all observations, a line of JSON each")
    action.add_argument(
        "--plot", choices=("dist", "time"), help="draw the distribution, or the course of time"
    )
    return parser.parse_args()


def finite(text: str) -> float:
    """A number that can be averaged. Raises `ValueError` for infinities and NaN."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def series() -> list[observations.Observation]:
    """All observations. Raises `Problem` where there are none."""
    found = observations.all_observations()
    if not found:
        raise Problem("there are no observations yet; is simulate_observations.py running?")
    return found


def print_stats() -> None:
    """One line of JSON: count, mean, stddev, median, first, last."""
    summary = observations.summarise(series())
    print(
        json.dumps(
            {
                "count": summary.count,
                "mean": round(summary.mean, 4),
                "stddev": round(summary.stddev, 4),
                "median": round(summary.median, 4),
                "first": summary.first.isoformat(timespec="milliseconds"),
                "last": summary.last.isoformat(timespec="milliseconds"),
            }
        )
    )


def dump() -> None:
    """A line of JSON per observation."""
    for one in series():
        print(json.dumps({"at": one.at.isoformat(timespec="milliseconds"), "value": one.value}))


def plot(kind: str) -> None:
    """Draw, and print the path of the PNG as a JSON string. Raises `Problem` where Pillow is missing."""
    found = series()
    try:
        import charts
    except ModuleNotFoundError as missing:
        raise Problem(f"drawing needs Pillow (the package `pillow`), and {missing}") from None
    image = charts.distribution(found) if kind == "dist" else charts.course(found)
    path = observations.OUT / f"{kind}.png"
    # Whoever is just fetching the last picture gets all of it.
    unfinished = Path(f"{path}.{os.getpid()}")
    image.save(unfinished, format="PNG", optimize=True)
    os.replace(unfinished, path)
    print(json.dumps(str(path)))


if __name__ == "__main__":
    sys.exit(main())
