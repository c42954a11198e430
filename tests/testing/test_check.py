"""`check` finds what is wrong with a service, says what shows it best, and leaves everything else alone."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import runpy
import socket
import subprocess
import sys
import threading
import time
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest

from shem.clock import SystemClock
from shem.errors import CommandFailed, ConfigError, ScriptError, ServiceDefinitionError
from shem.payload import VmPayload
from shem.service.service import Service
from shem.testing import Reply
from shem.testing.check import check, replay
from shem.testing.findings import Mistake
from shem.testing.laboratory import Laboratory
from shem.testing.limits import Limits
from shem.testing.plan import FaultKind, Plan
from shem.testing.report import Report
from shem.testing.space import Space, usual_plan
from shem.testing.steady import Interrupted, Stopwatch, steady

EXAMPLES = Path(__file__).parents[2] / "examples"
WrongService: type[Service] = runpy.run_path(str(EXAMPLES / "wrong_service.py"))["WrongService"]
SimpleService: type[Service] = runpy.run_path(str(EXAMPLES / "simple_service" / "simple_service.py"))[
    "SimpleService"
]


class Base(Service):
    """A service that does nothing wrong."""

    @staticmethod
    async def get_payload():
        return VmPayload(image_hash="0" * 56)

    def script(self, *command: str):
        script = self._ctx.new_script(timeout=20)
        script.run(*command)
        return script


def mistakes(report: Report) -> list[Mistake]:
    return [finding.symptom.mistake for finding in report.findings]


def only(report: Report) -> Any:
    """The one finding there is."""
    assert len(report.findings) == 1, [finding.story() for finding in report.findings]
    return report.findings[0]


# --- the two examples


@pytest.fixture(scope="module")
def wrong() -> Report:
    return check(WrongService, plans=50)


def line_of(text: str) -> int:
    """Number of the first line of code that holds a text."""
    lines = (EXAMPLES / "wrong_service.py").read_text().splitlines()
    return next(
        number for number, line in enumerate(lines, 1) if text in line and "#" not in line.split(text)[0]
    )


def test_every_mistake_of_the_wrong_service_is_found_where_it_is(wrong):
    found = {(one.symptom.mistake, one.symptom.where): one.symptom.place for one in wrong.findings}
    places = {
        (Mistake.UNCLEAN_RETRY, "start"): "",
        (Mistake.LEAVES_TASK, "a task of its own"): "asyncio.create_task",
        (Mistake.BLOCKS, "run"): "time.sleep",
        (Mistake.SWALLOWS, "run"): "yield script\n",
        (Mistake.NO_SCRIPT, "run"): "yield self.repair()",
        (Mistake.RAISES, "run"): "float(answer)",
        (Mistake.RAISES, "shutdown"): "self.counting.cancel()",
        (Mistake.OVERRUNS, "shutdown"): "asyncio.sleep(90)",
    }
    assert set(found) == set(places)
    for key, text in places.items():
        if text and not text.endswith("\n"):
            assert found[key].endswith(f"wrong_service.py:{line_of(text)}"), key


def test_the_plans_that_show_them_hold_nothing_needless(wrong):
    for finding in wrong.findings:
        assert finding.plan.weight <= 1, finding.story()
    plain = {one.symptom.mistake for one in wrong.findings if one.plan == Plan()}
    assert plain == {Mistake.BLOCKS, Mistake.SWALLOWS, Mistake.OVERRUNS}


def test_each_finding_is_a_story_with_what_was_planned_what_became_and_what_to_do(wrong):
    for finding in wrong.findings:
        story = finding.story()
        assert finding.symptom.said in story and finding.symptom.mistake.advice in story
        assert all(line in story for line in finding.plan.describe())
        assert "WrongService" in story and "is terminated" in story
    assert "nothing goes wrong" in next(one.story() for one in wrong.findings if one.plan == Plan())


def test_each_finding_shows_again_when_its_line_is_replayed(wrong):
    with Laboratory(WrongService) as laboratory:
        for finding in wrong.findings:
            life, symptoms = replay(laboratory, Plan.replay(repr(finding.plan)), quiet=True)
            assert finding.symptom.key in [one.key for one in symptoms], finding.story()
            assert life.plan == finding.plan


def test_what_a_failed_start_leaves_in_the_object_is_noted_and_no_finding(wrong):
    (note,) = (one for one in wrong.notes if "leaves in the object" in one)
    assert "deployed" in note and "reset()" in note


def test_nothing_is_found_wrong_with_the_simple_service(tmp_path):
    report = check(SimpleService, plans=50, params={"plots": tmp_path})
    assert not report.findings, [finding.story() for finding in report.findings]
    assert not report.notes
    assert (report.plans, report.wanted) == (50, 50)
    assert report.lives >= report.plans and report.moves > report.plans
    assert "nothing found" in report.summary() and "SimpleService" in report.summary()
    assert not list(tmp_path.iterdir()), "what scripts download is put back"


def test_the_same_seed_draws_the_same_plans_and_another_one_others():
    space = space_of(Base)

    def drawn(seed: int) -> list[Plan]:
        return list(islice(space.samples(seed), 50))

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(set(drawn(1))) == 50


def test_the_same_check_twice_finds_the_same():
    first, second = (check(Trusts, plans=15, seed=3) for _ in range(2))
    assert first.findings == second.findings
    assert (first.lives, first.moves, first.arrows) == (second.lives, second.moves, second.arrows)


def space_of(service: type[Service]) -> Space:
    with Laboratory(service) as laboratory:
        life, _observer = laboratory.undisturbed(1)
        usual = laboratory.settle(usual_plan(life))
        return Space.around(usual, len(laboratory.replies.ran))


# --- one mistake at a time


class ForgetsToDeploy(Base):
    async def start(self):
        yield self.script("/bin/prepare")


class NeverStarts(Base):
    async def start(self):
        await asyncio.sleep(1000)
        yield self.script("/bin/prepare")


class YieldsText(Base):
    async def run(self):
        yield "run /bin/x"


class Raises(Base):
    async def run(self):
        yield self.script("/bin/x")
        raise KeyError("nothing there")


class RaisesInCleanUp(Base):
    async def run(self):
        try:
            await asyncio.sleep(1000)
            yield self.script("/bin/x")
        finally:
            raise KeyError("no such file")


class RaisesInHook(Base):
    async def on_running(self, move):
        raise LookupError(move.dest.value)


class RaisesInTask(Base):
    async def run(self):
        self.task = asyncio.create_task(self.fail())
        await asyncio.sleep(1000)
        yield self.script("/bin/x")

    async def fail(self):
        await asyncio.sleep(1)
        raise LookupError("nobody hears this")


class AwaitsWhatWasCancelled(Base):
    async def run(self):
        task = asyncio.create_task(asyncio.sleep(1000))
        task.cancel()
        await task
        yield self.script("/bin/x")


class OpensASocket(Base):
    async def run(self):
        await asyncio.open_connection("localhost", 80)
        yield self.script("/bin/x")


class StartsAProcess(Base):
    async def run(self):
        await asyncio.create_subprocess_exec("/bin/true")
        yield self.script("/bin/x")


class WillNotEnd(Base):
    async def run(self):
        while True:
            try:
                await asyncio.sleep(5)
            except BaseException:
                continue
        yield self.script("/bin/x")


class YieldsInFinally(Base):
    async def run(self):
        try:
            while True:
                yield self.script("/bin/x")
                await asyncio.sleep(5)
        finally:
            yield self.script("/bin/clean-up")


class CleansUpTooLong(Base):
    async def run(self):
        try:
            await asyncio.sleep(1000)
            yield self.script("/bin/x")
        finally:
            await asyncio.sleep(60)


class BlocksInTask(Base):
    async def run(self):
        task = asyncio.create_task(self.work())
        try:
            await task
            yield self.script("/bin/x")
        finally:
            task.cancel()

    async def work(self):
        await asyncio.sleep(1)
        time.sleep(30)  # noqa: ASYNC251
        await asyncio.sleep(1000)


class ForgetsAwait(Base):
    async def run(self):
        asyncio.sleep(5)
        await asyncio.sleep(1000)
        yield self.script("/bin/x")


class Spins(Base):
    async def run(self):
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)
        yield self.script("/bin/x")


class SpinsForEver(Base):
    async def run(self):
        while True:
            try:
                await asyncio.sleep(0)
            except BaseException:
                continue
        yield self.script("/bin/x")


@pytest.mark.parametrize(
    ("service", "mistake", "said"),
    [
        (ForgetsToDeploy, Mistake.NEVER_RUNNING, "deploy() command is expected"),
        (NeverStarts, Mistake.OVERRUNS, "start() takes longer than the 120 s it has"),
        (YieldsText, Mistake.NO_SCRIPT, "run() yields a str"),
        (Raises, Mistake.RAISES, "run() raises KeyError: 'nothing there'"),
        (RaisesInCleanUp, Mistake.RAISES, "run() raises KeyError: 'no such file'"),
        (RaisesInHook, Mistake.RAISES, "on_running() raises LookupError: running"),
        (RaisesInTask, Mistake.RAISES, "RaisesInTask.fail() raises LookupError"),
        (AwaitsWhatWasCancelled, Mistake.RAISES, "run() raises CancelledError"),
        (OpensASocket, Mistake.UNSIMULATED, "no DNS inside the simulation"),
        (StartsAProcess, Mistake.UNSIMULATED, "run() raises NotImplementedError"),
        (WillNotEnd, Mistake.SWALLOWS, "run() is still at work after it has been stopped"),
        (YieldsInFinally, Mistake.SWALLOWS, "run() yields another script after it has been stopped"),
        (CleansUpTooLong, Mistake.OVERRUNS, "the clean-up of run() takes longer than the 5 s it has"),
        (BlocksInTask, Mistake.BLOCKS, "BlocksInTask.work() holds up the loop for 30.0 s"),
        (ForgetsAwait, Mistake.FORGETS_AWAIT, "sleep() is called, and never awaited"),
        (Spins, Mistake.SPINS, "run() turns in a circle without waiting"),
        (SpinsForEver, Mistake.SPINS, "run() turns in a circle without waiting"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_mistake_that_shows_in_the_undisturbed_life_is_found_there(service, mistake, said):
    report = check(service, plans=1)
    found = {finding.symptom.mistake: finding for finding in report.findings}
    assert mistake in found, [finding.story() for finding in report.findings]
    assert Mistake.INVARIANT not in found
    assert said in found[mistake].symptom.said
    assert found[mistake].plan == Plan()


class ForgetsItsTask(Base):
    """Cancels its task where shutdown() runs, and only there."""

    async def start(self):
        async for script in super().start():
            yield script
        self.task = asyncio.create_task(asyncio.sleep(10_000))

    async def shutdown(self):
        self.task.cancel()
        async for script in super().shutdown():
            yield script


class Trusts(Base):
    """Takes for granted that what failed left something behind."""

    async def run(self):
        text = None
        script = self._ctx.new_script(timeout=20)
        result = script.run("/bin/size")
        try:
            yield script
            text = (await result).stdout
        except CommandFailed:
            pass
        await asyncio.sleep(len(text))

    @staticmethod
    def fake_provider(program, args):
        return "12345"


class BreaksOnRetry(Base):
    """Its start works once per object."""

    def __init__(self):
        super().__init__()
        self.files = ["a", "b"]

    async def start(self):
        async for script in super().start():
            yield script
        while self.files:
            yield self.script("/bin/prepare", self.files.pop())


class CannotReset(Base):
    async def reset(self):
        raise LookupError("nothing to reset")

    async def start(self):
        async for script in super().start():
            yield script
        yield self.script("/bin/prepare")


@pytest.mark.parametrize(
    ("service", "mistake", "said"),
    [
        (ForgetsItsTask, Mistake.LEAVES_TASK, "the task of sleep() is still at work"),
        (Trusts, Mistake.RAISES, "run() raises TypeError"),
        (BreaksOnRetry, Mistake.UNCLEAN_RETRY, "for command 3: run /bin/prepare a; the first has: run"),
        (CannotReset, Mistake.RAISES, "reset() raises LookupError: nothing to reset"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_mistake_that_shows_only_with_a_fault_is_found_with_one_fault(service, mistake, said):
    report = check(service, plans=30)
    found = {finding.symptom.mistake: finding for finding in report.findings}
    assert mistake in found, [finding.story() for finding in report.findings]
    assert said in found[mistake].symptom.said
    assert found[mistake].plan.weight == 1


# --- what is no mistake


class Careful(Base):
    """Does with care what others do wrong."""

    async def start(self):
        async for script in super().start():
            yield script
        yield self.script("/bin/prepare", self.provider_name, str(self.id))

    async def run(self):
        beside = asyncio.create_task(self.beside())
        try:
            while True:
                try:
                    async with asyncio.timeout(1):
                        await asyncio.sleep(5)
                except TimeoutError:
                    pass
                await asyncio.to_thread(time.sleep, 2)
                yield self.script("/bin/x")
        except ScriptError:
            await asyncio.sleep(1)
            raise
        finally:
            beside.cancel()
            await asyncio.sleep(1)

    async def beside(self):
        while True:  # noqa: ASYNC110
            await asyncio.sleep(1)

    async def shutdown(self):
        await asyncio.sleep(30)
        async for script in super().shutdown():
            yield script

    async def reset(self):
        await asyncio.sleep(1)


def test_careful_handlers_have_no_findings_whatever_goes_wrong():
    report = check(Careful, plans=50)
    assert not report.findings, [finding.story() for finding in report.findings]


def test_the_time_that_a_thread_sleeps_passes_in_virtual_time():
    with Laboratory(Careful) as laboratory:
        life, _observer = laboratory.undisturbed(1)
    scripts = [call.at for call in life.done if call.name == "execute"]
    gaps = {round(later - earlier) for earlier, later in pairwise(scripts[3:10])}
    assert gaps == {4}  # a second of timeout, two of the thread, and the program's own time


def test_errors_that_shem_raises_may_be_let_through():
    class LetsThrough(Base):
        async def run(self):
            while True:
                await asyncio.sleep(3)
                yield self.script("/bin/x")

    assert not check(LetsThrough, plans=40).findings


# --- replies


class Digests(Base):
    """Asks for two things in one script, and looks at the second."""

    async def run(self):
        script = self._ctx.new_script()
        script.run("/bin/first", "-v")
        second = script.run("/bin/second", "a b")
        yield script
        json.loads((await second).stdout)
        await asyncio.sleep(1000)


class DigestsOldForm(Base):
    async def run(self):
        self._ctx.run("/bin/first")
        results = yield self._ctx.commit()
        (await results)[0].stdout.strip()


def test_the_command_whose_empty_output_could_not_be_digested_is_named():
    finding = only(check(Digests, plans=3))
    assert finding.symptom.mistake is Mistake.UNSCRIPTED
    assert "`/bin/second a b`" in finding.symptom.said and "/bin/first" not in finding.symptom.said
    assert "fake_provider" in finding.symptom.mistake.advice
    assert "--respond" in finding.symptom.mistake.advice


def test_in_the_older_form_the_commands_of_the_script_are_named():
    finding = only(check(DigestsOldForm, plans=3))
    assert finding.symptom.mistake is Mistake.UNSCRIPTED and "`/bin/first`" in finding.symptom.said


def test_what_is_not_scripted_is_noted_once():
    report = check(Digests, plans=3, table={"/bin/second": Reply("{}")})
    (note,) = report.notes
    assert "/bin/first -v" in note and "/bin/second" not in note
    assert not report.findings


class Hooked(Base):
    asked: ClassVar[list[tuple[str, list[str]]]] = []

    async def run(self):
        script = self._ctx.new_script()
        stats = script.run("/bin/stats", "--json", env={"LANG": "C"})
        file = script.download_bytes("/out/picture")
        script.download_from_url("http://example.com/x", "/in/x")
        fetched = script.download_bytes("/in/x")
        yield script
        assert (await stats).stdout == "hook"
        assert (await file).value == b"pixels"
        assert (await fetched).value == b"page"

    @classmethod
    def fake_provider(cls, program, args):
        cls.asked.append((program, list(args)))
        return {"/bin/stats": "hook", "download": "pixels", "fetch": "page"}.get(program)


def test_the_hook_is_asked_for_programs_files_that_nobody_wrote_and_urls():
    Hooked.asked.clear()
    report = check(Hooked, plans=1)
    assert not report.findings and not report.notes
    assert Hooked.asked[:3] == [
        ("/bin/stats", ["--json"]),
        ("download", ["/out/picture"]),
        ("fetch", ["http://example.com/x"]),
    ]


def test_a_table_comes_before_the_hook():
    finding = only(check(Hooked, plans=1, table={"/bin/st*": Reply("table")}))
    assert finding.symptom.what == "AssertionError"


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (staticmethod(lambda program, args: 5), "gave int 5; return a Reply"),
        (staticmethod(lambda program, args: Reply(files={"/x": "text"})), "return a Reply"),
        (staticmethod(lambda program, args: args[7]), "raised IndexError"),
        (staticmethod(lambda program: ""), "raised TypeError"),
        (lambda self, program, args: "", "must be a static or class method"),
    ],
    ids=["a number", "a file of text", "an error", "too few arguments", "a plain method"],
)
def test_a_broken_hook_is_wrong_input_and_no_finding(hook, said):
    service = type("Demo", (Raises,), {"fake_provider": hook})
    with pytest.raises(ConfigError, match=r"fake_provider|<lambda>") as refused:
        check(service, plans=1)
    assert said in str(refused.value)


# --- input, limits, and what is left alone


def test_a_service_that_cannot_be_run_is_refused_before_anything_is_tried():
    class Coroutine(Base):
        async def run(self):
            pass

    class Wants(Base):
        def __init__(self, address):
            super().__init__()

    class Breaks(Base):
        def __init__(self):
            raise LookupError("no configuration")

    with pytest.raises(ServiceDefinitionError, match="must be an async generator"):
        check(Coroutine)
    with pytest.raises(ServiceDefinitionError, match="address"):
        check(Wants)
    with pytest.raises(ConfigError, match="no configuration"):
        check(Breaks)
    assert check(Wants, plans=1, params={"address": "x"}).plans == 1


def test_budgets_can_be_given(wrong):
    report = check(WrongService, plans=1, limits=Limits(start=120.0, stop=100.0))
    assert Mistake.OVERRUNS in mistakes(wrong) and Mistake.OVERRUNS not in mistakes(report)


def test_it_stops_when_its_time_is_up_and_says_so():
    report = check(Base, plans=500, seconds=0.0)
    assert report.plans < 5 and not report.findings
    assert "time was up after" in report.notes[-1]
    assert f"{report.plans} of 500 plans" in report.summary()


def test_where_it_never_gets_to_running_no_other_plan_is_tried():
    report = check(ForgetsToDeploy, plans=50)
    assert report.plans == 1 and "no other plan was tried" in report.notes[-1]


def test_progress_is_told_and_several_instances_are_made():
    seen: list[int] = []
    report = check(Base, plans=12, instances=3, progress=seen.append)
    assert seen == list(range(2, 13))
    assert report.moves > 12 * 3 * 2


def test_the_report_is_json(wrong):
    told = json.loads(json.dumps(wrong.as_json()))
    assert told["service"] == "WrongService" and told["plans"] == 50
    assert len(told["findings"]) == len(wrong.findings) == 8
    one = told["findings"][0]
    assert Plan.replay(one["plan"]).weight <= 1
    assert one["mistake"] == "no_script" and one["planned"] and one["became"] and one["advice"]
    assert told["arrows"]["taken"] + len(told["arrows"]["missing"]) == told["arrows"]["of"]


def test_no_network_is_touched_and_no_process_is_run(monkeypatch, tmp_path):
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("this would leave the simulation")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert not check(SimpleService, plans=10, params={"plots": tmp_path}).findings


class Downloads(Base):
    target = ""

    async def run(self):
        script = self._ctx.new_script()
        script.download_file("/out/result", self.target)
        yield script
        assert Path(self.target).read_bytes() == b""  # noqa: ASYNC240
        print("this is not shown")
        random.random()

    @staticmethod
    def fake_provider(program, args):
        return None


def test_files_prints_and_chance_are_as_they_were(tmp_path, capsys, monkeypatch):
    target = tmp_path / "result.txt"
    target.write_text("precious")
    monkeypatch.setattr(Downloads, "target", str(target))
    random.seed(5)
    before = random.getstate()
    report = check(Downloads, plans=10)
    assert not report.findings, [finding.story() for finding in report.findings]
    assert target.read_text() == "precious" and list(tmp_path.iterdir()) == [target]
    assert random.getstate() == before
    assert capsys.readouterr().out == ""
    assert time.sleep.__module__ == "time"
    assert "download /out/result" in report.notes[0] and "empty" in report.notes[0]


class Moody(Base):
    lives = 0

    async def run(self):
        type(self).__base__.__base__.lives += 1
        if Moody.lives == 7:
            raise LookupError("only now")
        await asyncio.sleep(1000)
        yield self.script("/bin/x")


def test_what_is_seen_only_once_is_told_as_such():
    report = check(Moody, plans=10)
    assert only(report).symptom.what == "LookupError"
    assert "was seen once, and not again" in report.notes[0] and "only now" in report.notes[0]


def test_what_is_printed_to_stderr_or_logged_is_dropped_as_well(capsys, caplog):
    class Talks(Base):
        async def run(self):
            print("to stderr", file=sys.stderr)
            logging.getLogger("talks").error("to the log")
            await asyncio.sleep(1000)
            yield self.script("/bin/x")

    assert not check(Talks, plans=3).findings
    assert capsys.readouterr() == ("", "") and not caplog.records
    logging.getLogger("talks").error("as before")
    assert [record.message for record in caplog.records] == ["as before"]


# --- real time


def test_a_step_that_does_not_come_back_is_interrupted_where_it_is():
    watch = Stopwatch(SystemClock(), allowed=0.02)
    with watch.watching():
        watch.begin()
        with pytest.raises(Interrupted, match="without coming back"):
            while True:
                pass
        assert watch.end() > 0.1
        assert watch.place.endswith(f"test_check.py:{this_line() - 3}")


def this_line() -> int:
    frame = sys._getframe(1)
    return frame.f_lineno


class NeverLetsGo(Base):
    async def run(self):
        while True:
            pass
        yield self.script("/bin/x")


def test_a_handler_that_never_lets_go_of_the_loop_is_found_and_does_not_hold_up_the_check():
    finding = only(check(NeverLetsGo, plans=3, allowed=0.02))
    assert finding.symptom.mistake is Mistake.BLOCKS
    assert finding.symptom.place.rpartition(":")[0] == __file__


def test_a_slow_step_is_measured_and_a_quick_one_is_not():
    clock = _Hand()
    watch = Stopwatch(clock, allowed=0.5)
    with watch.watching():
        for took, told in ((0.1, 0.0), (0.7, 0.7), (0.4, 0.0)):
            watch.begin()
            clock.now_at += took
            assert watch.end() == pytest.approx(told)


class _Hand(SystemClock):
    now_at = 0.0

    def monotonic(self) -> float:
        return self.now_at


def test_sleeping_takes_no_time_in_the_users_code_and_in_other_threads_it_does():
    watch = Stopwatch(SystemClock())
    with watch.watching():
        watch.begin()
        time.sleep(100)
        began = time.monotonic()
        thread = threading.Thread(target=time.sleep, args=(0.05,))
        thread.start()
        thread.join()
        assert time.monotonic() - began >= 0.05
        assert watch.end() > 100


def test_no_signal_is_used_outside_the_main_thread():
    found: list[Report] = []
    thread = threading.Thread(target=lambda: found.append(check(Raises, plans=1)))
    thread.start()
    thread.join()
    assert mistakes(found[0]) == [Mistake.RAISES]


def test_chance_follows_from_the_seed():
    def draw(seed: int) -> float:
        with steady(seed):
            return random.random()

    assert draw(1) == draw(1) != draw(2)


def test_every_kind_of_fault_is_tried_early():
    plans = list(space_of(SimpleService).singles())
    assert len(plans) == len(set(plans)) < 500
    early = {fault.kind for plan in plans[:40] for fault in plan.faults}
    assert early >= set(FaultKind) - {FaultKind.RECOVER}
