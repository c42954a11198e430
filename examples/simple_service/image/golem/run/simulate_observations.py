#!/usr/bin/env python3
"""An instrument that does not exist: writes normally distributed observations until it is told to stop.

SIGTERM or SIGINT end it. Only one runs at a time: it holds a lock on its pid file as long as it lives, and
the lock, unlike the number in the file, goes with it whatever way it ends.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import random
import signal
import sys
import threading
import time

# The image's run directory is read-only, or stands for a directory of somebody's sources.
sys.dont_write_bytecode = True

import observations  # noqa: E402

PID_FILE = observations.OUT / "simulate_observations.pid"


def main() -> int:
    """Observe until told to stop; returns the exit code."""
    options = arguments()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    observations.OUT.mkdir(parents=True, exist_ok=True)
    with open(PID_FILE, "a+") as pid_file:
        try:
            fcntl.flock(pid_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("simulate_observations: another one is running already", file=sys.stderr)
            return 1
        pid_file.truncate(0)
        print(os.getpid(), file=pid_file, flush=True)
        observe(options, stopped)
    return 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Writes normally distributed observations.")
    parser.add_argument("--mean", type=float, default=14.0)
    parser.add_argument("--stddev", type=float, default=3.0)
    parser.add_argument("--interval", type=float, default=0.2, help="seconds between two observations")
    parser.add_argument("--seed", type=int, help="makes the values, not their times, the same every time")
    parser.add_argument("--ready-fd", type=int, help="written to and closed after the first observation")
    options = parser.parse_args()
    if options.stddev < 0 or options.interval <= 0:
        parser.error("--stddev must not be negative, and --interval must be positive")
    return options


def observe(options: argparse.Namespace, stopped: threading.Event) -> None:
    """One observation per interval, without drift, until `stopped`."""
    chance = random.Random(options.seed)
    due = time.monotonic()
    while not stopped.is_set():
        observations.add(chance.gauss(options.mean, options.stddev))
        if options.ready_fd is not None:
            os.write(options.ready_fd, b"ready\n")
            os.close(options.ready_fd)
            options.ready_fd = None
        # After a pause (a slow disk, a frozen machine) it goes on from now, rather than catching up.
        due = max(due + options.interval, time.monotonic())
        stopped.wait(due - time.monotonic())


if __name__ == "__main__":
    sys.exit(main())
