"""The provider image of the simple service: its programs as real processes, in a copy of the image."""

import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

IMAGE = Path(__file__).parents[2] / "examples" / "simple_service" / "image"
CTL, SIMULATOR, SERVICE = "simulate_observations_ctl.py", "simulate_observations.py", "simple_service.py"


class Activity:
    """A copy of the image, and what a provider would do with it."""

    def __init__(self, root):
        self.root = root
        self.out = root / "golem" / "out"

    def run(self, program, *args, timeout=20):
        """Run a program to its end, which is where its output ends, too."""
        path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
        return subprocess.run(
            [str(self.root / "golem" / "run" / program), *args],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={"PATH": path},
            cwd="/",
        )

    def ok(self, program, *args):
        done = self.run(program, *args)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout.strip()

    def processes(self):
        """Pids of all processes that run something of this copy; what is dead but not reaped does not run."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if str(self.root).encode() in words:
                    found.append(int(entry.name))
        return found


@pytest.fixture
def activity(tmp_path):
    shutil.copytree(IMAGE, tmp_path / "root", ignore=shutil.ignore_patterns("__pycache__"))
    it = Activity(tmp_path / "root")
    yield it
    it.run(CTL, "--stop")
    until = time.monotonic() + 2
    while it.processes() and time.monotonic() < until:
        # An ending process lets its lock go shortly before it is out of the process table.
        time.sleep(0.01)
    assert it.processes() == []
    assert not (it.root / "golem" / "run" / "__pycache__").exists()


def test_the_programs_can_be_executed_as_they_are():
    for program in (CTL, SIMULATOR, SERVICE):
        path = IMAGE / "golem" / "run" / program
        assert os.access(path, os.X_OK)
        assert path.read_text().startswith("#!/usr/bin/env python3\n")


# --- the simulator in the background ----------------------------------------------------------------------


def test_start_stop_and_status_may_be_said_twice(activity):
    assert activity.run(CTL, "--status").returncode == 3
    assert activity.ok(CTL, "--stop") == "not running"

    started = activity.ok(CTL, "--start")
    pid = int(started.removeprefix("started (pid ").rstrip(")"))
    # It is up when --start returns: the first observation is there.
    assert json.loads(activity.ok(SERVICE, "--stats"))["count"] >= 1
    assert activity.ok(CTL, "--start") == f"already running (pid {pid})"
    assert activity.ok(CTL, "--status") == f"running (pid {pid})"
    assert activity.processes() == [pid]
    # The end of the session that started it is not its end.
    assert os.getsid(pid) == pid

    assert activity.ok(CTL, "--stop") == f"stopped (pid {pid})"
    assert activity.ok(CTL, "--stop") == "not running"
    assert activity.run(CTL, "--status").returncode == 3
    count = json.loads(activity.ok(SERVICE, "--stats"))["count"]
    assert json.loads(activity.ok(SERVICE, "--stats"))["count"] == count


def test_a_simulator_that_was_killed_is_not_running_and_can_be_stopped_and_started(activity):
    activity.ok(CTL, "--start")
    (pid,) = activity.processes()
    os.kill(pid, signal.SIGKILL)
    stopped = activity.ok(CTL, "--stop")
    # The kill may take effect a moment after the command has looked.
    assert stopped in ("not running", f"stopped (pid {pid})")
    # A pid file without a lock names nobody, not even a process that has got that number by now.
    (activity.out / "simulate_observations.pid").write_text(f"{os.getpid()}\n")
    assert activity.run(CTL, "--status").stdout.strip() == "not running"
    assert activity.ok(CTL, "--stop") == "not running"
    assert activity.ok(CTL, "--start").startswith("started")


def test_many_starts_at_once_make_one_simulator(activity):
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda _: activity.ok(CTL, "--start"), range(4)))
    assert sorted(words.split(" (")[0] for words in said) == [*["already running"] * 3, "started"]
    assert len(activity.processes()) == 1


def test_a_simulator_that_ignores_the_request_is_killed(activity):
    activity.ok(CTL, "--start")
    (pid,) = activity.processes()
    os.kill(pid, signal.SIGSTOP)
    control = activity.root / "golem" / "run" / CTL
    control.write_text(control.read_text().replace("STOP_BUDGET = 5.0", "STOP_BUDGET = 0.2"))
    assert activity.ok(CTL, "--stop") == f"stopped (pid {pid})"


def test_a_simulator_that_does_not_come_up_is_reported_with_what_it_said(activity):
    failed = activity.run(CTL, "--start", "--interval", "0")
    assert failed.returncode == 1
    assert "--interval must be positive" in failed.stderr
    assert activity.run(CTL, "--status").returncode == 3


def test_the_simulated_values_are_normally_distributed(activity):
    activity.ok(CTL, "--start", "--mean", "50", "--stddev", "2", "--interval", "0.001", "--seed", "1")
    until = time.monotonic() + 5
    while (stats := json.loads(activity.ok(SERVICE, "--stats")))["count"] < 100:
        assert time.monotonic() < until
    activity.ok(CTL, "--stop")
    assert stats["mean"] == pytest.approx(50, abs=1)
    assert stats["stddev"] == pytest.approx(2, abs=0.7)


def test_readers_and_writers_at_the_same_time_do_not_fail(activity):
    activity.ok(CTL, "--start", "--interval", "0.001")
    with ThreadPoolExecutor(4) as pool:
        work = [("--stats",), ("--add", "14")] * 6
        for done in pool.map(lambda args: activity.run(SERVICE, *args), work):
            assert done.returncode == 0, done.stderr


# --- what the service tells -------------------------------------------------------------------------------


def test_the_summary_of_known_values(activity):
    values = [12.5, 14.0, 20.25, -3.0]
    activity.ok(SERVICE, "--init")
    for value in values:
        # The equals sign keeps a negative number from being taken for an option.
        activity.ok(SERVICE, f"--add={value}")
    activity.ok(SERVICE, "--init")

    line = activity.ok(SERVICE, "--stats")
    assert "\n" not in line
    stats = json.loads(line)
    assert list(stats) == ["count", "mean", "stddev", "median", "first", "last"]
    assert stats["count"] == 4
    assert stats["mean"] == pytest.approx(statistics.fmean(values), abs=1e-4)
    assert stats["stddev"] == pytest.approx(statistics.pstdev(values), abs=1e-4)
    assert stats["median"] == 13.25
    first, last = (datetime.fromisoformat(stats[end]) for end in ("first", "last"))
    assert timedelta(0) <= last - first < timedelta(seconds=20)
    assert first.utcoffset() == timedelta(0)

    dumped = [json.loads(line) for line in activity.ok(SERVICE, "--dump").splitlines()]
    assert [one["value"] for one in dumped] == values
    assert dumped[0]["at"] == stats["first"]


@pytest.mark.parametrize("action", [["--stats"], ["--dump"], ["--plot", "dist"], ["--plot", "time"]])
def test_without_observations_it_says_so(activity, action):
    done = activity.run(SERVICE, *action)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "no observations yet" in done.stderr


def test_what_makes_no_sense_is_refused(activity):
    for args in (["--add", "nan"], ["--add", "many"], ["--plot", "pie"], ["--stats", "--dump"], []):
        done = activity.run(SERVICE, *args)
        assert done.returncode == 2
        assert "usage:" in done.stderr
    assert activity.run(CTL, "--stop", "--interval", "1").returncode == 2
    assert not (activity.out / "observations.db").exists()


# --- pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dist", "time"])
def test_a_plot_is_a_picture_whose_path_is_printed_in_quotes(activity, kind):
    image = pytest.importorskip("PIL.Image")
    for value in (12.5, 14.0, 20.25):
        activity.ok(SERVICE, "--add", str(value))
    printed = activity.ok(SERVICE, "--plot", kind)
    path = printed.strip().strip('"')
    assert json.loads(printed) == path == str(activity.out / f"{kind}.png")
    with image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.size == (1200, 750)
        # Columns or dots, words and paper: more than one colour, and none of them everywhere.
        shades = sorted(picture.convert("L").getcolors(), reverse=True)
    assert len(shades) > 20
    assert shades[0][0] < 0.97 * 1200 * 750
    assert [path.suffix for path in activity.out.iterdir() if path.name.startswith(kind)] == [".png"]


def test_without_pillow_a_plot_names_what_is_missing(activity):
    activity.ok(SERVICE, "--add", "1")
    (activity.root / "golem" / "run" / "PIL.py").write_text(
        "raise ModuleNotFoundError('No module named PIL')"
    )
    done = activity.run(SERVICE, "--plot", "dist")
    assert done.returncode == 1
    assert "needs Pillow" in done.stderr


@pytest.fixture(scope="module")
def charts():
    pytest.importorskip("PIL.Image")
    run, written = str(IMAGE / "golem" / "run"), sys.dont_write_bytecode
    sys.path.insert(0, run)
    sys.dont_write_bytecode = True
    try:
        yield import_module("charts")
    finally:
        sys.path.remove(run)
        sys.dont_write_bytecode = written
        for name in ("charts", "observations"):
            sys.modules.pop(name, None)


@settings(max_examples=8, deadline=None)
@given(
    st.lists(
        st.floats(-1e9, 1e9) | st.sampled_from([0.0, 14.0, 14.0 + 1e-14, 1e-300]), min_size=1, max_size=20
    ),
    st.floats(0, 1e6),
)
def test_any_series_can_be_drawn(charts, values, pause):
    begin = datetime(2026, 3, 4, 12, 0, 3, tzinfo=UTC)
    series = [
        charts.Observation(begin + timedelta(seconds=place * pause), value)
        for place, value in enumerate(values)
    ]
    for picture in (charts.distribution(series), charts.course(series)):
        assert picture.size == (1200, 750)


@given(st.floats(-1e9, 1e9), st.floats(1e-3, 1e9), st.integers(3, 15))
def test_ticks_are_few_round_and_inside(charts, low, span, about):
    ticks = charts._ticks(low, low + span, about)
    assert len(ticks) <= about + 1
    steps = [b.at - a.at for a, b in pairwise(ticks)]
    error = (abs(low) + span) * 1e-9
    assert all(low - error - span * 1e-6 <= tick.at <= low + span + error + span * 1e-6 for tick in ticks)
    for step in steps:
        digit = step / 10 ** math.floor(math.log10(steps[0]) + 1e-9)
        assert min(abs(digit - round_digit) for round_digit in (1, 2, 5, 10)) < 0.01 + error / steps[0]
