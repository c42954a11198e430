"""Every seeded bug still applies to the sources, and is a bug: it changes them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

MUTANTS = runpy.run_path(str(Path(__file__).with_name("seeded.py")), run_name="seeded")["MUTANTS"]
SOURCES = Path(__file__).resolve().parents[2] / "src" / "shem"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_seeded_bug_still_applies(mutant):
    text = (SOURCES / mutant.file).read_text()
    assert text.count(mutant.old) == 1
    assert mutant.new != mutant.old


def test_there_are_enough_of_them_and_each_has_its_own_name():
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names)) >= 15
