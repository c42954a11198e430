#!/usr/bin/env python3
"""Starts and stops the simulator in the background.

--start returns when the first observation is written, --stop when the simulator is gone; both may be said
twice. --status ends with exit code 0 where it runs, and 3 where it does not. Further options of --start are
handed on: `--start --interval 0.5`.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# The image's run directory is read-only, or stands for a directory of somebody's sources.
sys.dont_write_bytecode = True

from observations import OUT  # noqa: E402
from simulate_observations import PID_FILE  # noqa: E402

SIMULATOR = Path(os.path.abspath(__file__)).with_name("simulate_observations.py")
LOG = OUT / "simulate_observations.log"

#: Seconds for the simulator to come up, and to go away before it is killed.
START_BUDGET = 20.0
STOP_BUDGET = 5.0

NOT_RUNNING = 3


def main() -> int:
    """Do what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(description="Starts and stops the simulator in the background.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--start", action="store_true", help="start it; further options are handed on to it")
    action.add_argument("--stop", action="store_true", help="stop it")
    action.add_argument("--status", action="store_true", help="tell whether it runs")
    options, more = parser.parse_known_args()
    if more and not options.start:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    with alone():
        if options.start:
            return start(more)
        if options.stop:
            return stop()
        return status()


@contextmanager
def alone() -> Iterator[None]:
    """One control command at a time, so that none sees another's work half done."""
    OUT.mkdir(parents=True, exist_ok=True)
    directory = os.open(OUT, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def start(options: list[str]) -> int:
    """Start the simulator unless it runs, and wait for its first observation."""
    if pid := running():
        print(f"already running (pid {pid})")
        return 0
    ready, ready_fd = os.pipe()
    with open(LOG, "wb") as log:
        # A session of its own and no pipe of ours: it outlives this command, and whoever waits for the end of
        # this command's output is not kept waiting by it.
        simulator = subprocess.Popen(
            [sys.executable, str(SIMULATOR), "--ready-fd", str(ready_fd), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(ready_fd,),
            cwd="/",
        )
    os.close(ready_fd)
    with open(ready, "rb", buffering=0) as answer:
        # Either it says that it is ready, or it ends and so closes its side, or the budget is spent.
        came_up = bool(select.select([answer], [], [], START_BUDGET)[0]) and answer.read(1) != b""
    if came_up:
        print(f"started (pid {simulator.pid})")
        return 0
    simulator.kill()
    simulator.wait()
    said = LOG.read_text(errors="replace").strip() or f"it wrote nothing within {START_BUDGET:g} s"
    print(f"the simulator did not come up: {said}", file=sys.stderr)
    return 1


def stop() -> int:
    """Stop the simulator if it runs, and wait for its end."""
    pid = running()
    if pid:
        tell(pid, signal.SIGTERM)
        if not gone_within(STOP_BUDGET):
            tell(pid, signal.SIGKILL)
            if not gone_within(STOP_BUDGET):
                print(f"the simulator (pid {pid}) cannot be killed", file=sys.stderr)
                return 1
    PID_FILE.unlink(missing_ok=True)
    print(f"stopped (pid {pid})" if pid else "not running")
    return 0


def status() -> int:
    """Tell whether the simulator runs."""
    pid = running()
    print(f"running (pid {pid})" if pid else "not running")
    return 0 if pid else NOT_RUNNING


def running() -> int | None:
    """The simulator's pid, or None where none runs. A pid file without its lock is only a leftover."""
    try:
        with open(PID_FILE) as pid_file:
            fcntl.flock(pid_file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return int(PID_FILE.read_text())
    return None


def tell(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may just have ended by itself."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def gone_within(seconds: float) -> bool:
    """Wait for the simulator's lock to be free, which it is when its process has ended."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with open(PID_FILE) as pid_file:
            fcntl.flock(pid_file, fcntl.LOCK_SH)
    except TimeoutError:
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return True


if __name__ == "__main__":
    sys.exit(main())
