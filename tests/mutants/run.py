"""Run the suites against every seeded bug, and tell which was found, by what, and how soon."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from seeded import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
#: Suites in virtual time, the quickest first; a mutant is found by the first test that fails.
SUITES = ("lifecycle", "script", "service", "engine", "fleet", "golem", "simulation")
SECONDS = 420


def apply(mutant: Mutant, source: Path) -> None:
    """Make the bug in a copy of the sources. Raises `ValueError` where it does not apply any more."""
    file = source / "shem" / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: its text stands {text.count(mutant.old)} times in {mutant.file}")
    file.write_text(text.replace(mutant.old, mutant.new))


def hunt(mutant: Mutant | None) -> tuple[Mutant | None, str, float]:
    """Name of the test that found the bug (empty if none did) and the seconds it took. None is no bug."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shem-mutant-") as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        if mutant is not None:
            apply(mutant, source)
        tests = [str(ROOT / "tests" / suite) for suite in SUITES if (ROOT / "tests" / suite).exists()]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        env = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return mutant, f"no end within {SECONDS} s", time.monotonic() - began
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, flags=re.MULTILINE)
    found = failed[0].removeprefix("tests/") if failed else ""
    return mutant, found, time.monotonic() - began


def main() -> int:
    """Hunt all mutants, two at a time; 1 where one was not found."""
    wanted = sys.argv[1:]
    chosen = [m for m in MUTANTS if not wanted or any(word in m.name for word in wanted)]
    _nothing, failed, seconds = hunt(None)
    if failed:
        print(f"the suite fails without any seeded bug, so nothing can be shown: {failed}")
        return 2
    print(f"the suite passes without any seeded bug, in {seconds:.0f} s", flush=True)
    missed = 0
    with ThreadPoolExecutor(2) as pool:
        for mutant, found, seconds in pool.map(hunt, chosen):
            assert mutant is not None
            missed += not found
            print(
                f"{'found ' if found else 'MISSED'} {seconds:5.0f} s  {mutant.name}\n{'':16}{found}",
                flush=True,
            )
    print(f"{len(chosen)} seeded bugs, {len(chosen) - missed} found, {missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
