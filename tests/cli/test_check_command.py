"""`shem check`: what it prints, for people and for programs, and its exit codes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from shem.cli import main
from shem.testing.plan import Plan

DEMO = """
import asyncio
from shem import Service, vm

class Demo(Service):
    def __init__(self, pause=5, name="x"):
        super().__init__()
        self.pause, self.name = pause, name

    @staticmethod
    async def get_payload():
        return await vm.repo(image_hash="0" * 56)

    async def run(self):
        while True:
            script = self._ctx.new_script(timeout=20)
            result = script.run("/bin/size", self.name)
            yield script
            print("size", int((await result).stdout))
            await asyncio.sleep(self.pause)
"""
HOOK = """
    @staticmethod
    def fake_provider(program, args):
        return "5"
"""


@pytest.fixture
def demo(tmp_path):
    """A file with a service; each test has one of its own name, since modules are imported once."""

    def write(body: str = "") -> Path:
        file = tmp_path / f"demo_{abs(hash(tmp_path)):x}.py"
        file.write_text(DEMO + body)
        return file

    return write


def shem_check(*args: object) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, args)])


def test_a_service_without_mistakes_gets_a_summary_and_exit_code_0(demo):
    result = shem_check(demo(HOOK), "--plans", 20, "-n", 2)
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    assert line.startswith("Demo: nothing found; 20 plans, ")
    assert "lives" in line and "moves" in line and "arrows of the table" in line and line.endswith(" s")


def test_the_wrong_example_has_findings_each_with_its_story_and_replay_line():
    result = shem_check("examples/wrong_service.py", "--plans", 10)
    assert result.exit_code == 1
    lines = [line for line in result.stdout.splitlines() if "to replay:" in line]
    assert len(lines) >= 3
    assert "at examples/wrong_service.py:" in result.stdout
    assert "finding(s)" in result.stdout.splitlines()[-1]
    words = shlex.split(lines[0].partition("to replay: ")[2])
    assert words[:4] == ["shem", "check", "examples/wrong_service.py", "--replay"]
    again = CliRunner().invoke(main, words[1:])
    assert again.exit_code == 1
    assert "planned:" in again.stdout and "became:" in again.stdout and words[4] in again.stdout


def test_one_json_object_holds_everything(demo):
    result = shem_check(demo(), "--plans", 5, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["service"] == "Demo" and told["plans"] == told["wanted"] == 5
    (finding,) = told["findings"]
    assert finding["mistake"] == "unscripted"
    assert "`/bin/size x`" in finding["said"]
    assert Plan.replay(finding["plan"]) == Plan()


def test_a_command_whose_empty_output_is_not_digested_is_named_with_what_to_do(demo):
    result = shem_check(demo(), "--plans", 5)
    assert result.exit_code == 1
    assert "cannot digest the empty output of `/bin/size x`" in result.stdout
    assert "fake_provider" in result.stdout and "--respond" in result.stdout


def test_a_table_scripts_the_commands(demo, tmp_path):
    table = tmp_path / "replies.json"
    table.write_text('{"/bin/size *": {"stdout": "7", "seconds": 1}}')
    file = demo()
    assert shem_check(file, "--plans", 5, "--respond", table).exit_code == 0
    table.write_text('{"/bin/size": "seven"}')
    result = shem_check(file, "--plans", 5, "--respond", table, "-p", "pause=3", "-p", "name=a b")
    assert result.exit_code == 1 and "ValueError" in result.stdout
    line = next(line for line in result.stdout.splitlines() if "to replay:" in line)
    words = shlex.split(line.partition("to replay: ")[2])
    assert words[3:9] == ["-p", "pause=3", "-p", "name=a b", "--respond", str(table)]


def test_a_replay_shows_what_the_service_prints_and_says_where_nothing_is_wrong(demo):
    plan = "Plan(faults=(Fault(kind=FaultKind.KILL, at=20.0),))"
    file = demo(HOOK)
    result = shem_check(file, "--replay", plan)
    assert result.exit_code == 0, result.output
    assert "size 5" in result.stdout and "the activity dies" in result.stdout
    assert "killed by the plan" in result.stdout
    assert result.stdout.splitlines()[-1] == "nothing wrong is found in this life"
    told = json.loads(shem_check(file, "--replay", plan, "--json").stdout)
    assert told["plan"] == plan and not told["findings"] and told["story"][0] == "planned:"


def test_a_replayed_mistake_is_told_as_json_too():
    plan = "Plan(faults=(Fault(kind=FaultKind.COMMAND_FAILS, at_call=2),))"
    result = shem_check("examples/wrong_service.py", "--replay", plan, "--json")
    assert result.exit_code == 1
    assert "no_script" in [one["mistake"] for one in json.loads(result.stdout)["findings"]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--plans", "0"], "--plans"),
        (["--replay", "Plan(seed="], "cannot be read"),
        (["--replay", "__import__('os')"], "neither a literal nor one of"),
        (["--respond", "none.json"], "none.json"),
        (["--start-timeout", "1h"], "is longer than"),
        (["-p", "nonsense=1"], "nonsense"),
        (["-n", "99"], "99"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_error_and_exit_code_2(demo, options, said):
    result = shem_check(demo(HOOK), *options)
    assert result.exit_code == 2, result.output
    assert said in result.stderr and "Traceback" not in result.output


def test_a_missing_file_and_a_service_that_cannot_be_run_are_wrong_input(demo, tmp_path):
    assert shem_check(tmp_path / "none.py").exit_code == 2
    result = shem_check(demo("    async def start(self):\n        pass\n"))
    assert result.exit_code == 2 and "Demo.start() must be an async generator" in result.stderr
    table = tmp_path / "list.json"
    table.write_text("[]")
    result = shem_check("examples/wrong_service.py", "--respond", table)
    assert result.exit_code == 2 and "must hold an object" in result.stderr


def test_budgets_are_options():
    plan = ["--replay", "Plan()", "--json"]
    for options, found in (([], True), (["--stop-timeout", "100s"], False)):
        told = json.loads(shem_check("examples/wrong_service.py", *options, *plan).stdout)
        assert ("overruns" in [one["mistake"] for one in told["findings"]]) is found
