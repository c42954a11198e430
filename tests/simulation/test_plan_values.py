"""Plans as values: told, replayed, refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given

from shem.errors import ConfigError
from shem.service.policy import RestartPolicy
from shem.testing.plan import (
    Action,
    ActionKind,
    Fault,
    FaultKind,
    HandlerFault,
    HandlerFaultKind,
    Plan,
    nth,
)
from shem.testing.strategies import plans


@given(plans())
def test_the_repr_of_a_plan_replays_it(plan: Plan) -> None:
    assert Plan.replay(repr(plan)) == plan
    assert hash(Plan.replay(f"  {plan!r}\n")) == hash(plan)


@given(plans())
def test_everything_in_a_plan_is_told(plan: Plan) -> None:
    lines = plan.describe()
    assert all(line.strip() for line in lines)
    assert len(lines) >= 1 + plan.weight
    for part in (*plan.faults, *plan.actions, *plan.handlers):
        assert str(part) in lines


def test_the_default_plan_is_short() -> None:
    assert repr(Plan()) == "Plan()"
    assert Plan.replay("Plan()") == Plan()
    assert Plan().weight == 0


def test_a_story_reads_like_one() -> None:
    plan = Plan(
        instances=2,
        faults=(
            Fault(FaultKind.VANISH, at=3.5, seconds=30.0),
            Fault(FaultKind.CUT_AFTER, at_call=2, call="execute"),
            Fault(FaultKind.COMMAND_FAILS, at_call=3),
        ),
        actions=(Action(ActionKind.STOP, at=20.0),),
        handlers=(HandlerFault(HandlerFaultKind.RAISES, "run", step=1),),
        deviations=((3, 1),),
        policy=RestartPolicy(on="failure"),
    )
    assert plan.describe() == [
        "2 instance(s) on a node with 3 provider(s)",
        "node calls take 0.05 s in turn",
        "at 3.5 s: the provider vanishes for 30 s",
        "at the 2nd execute(): the connection is cut after execute() had its effect",
        "the 3rd program that is run on a provider fails",
        "run() raises an error before its 2nd script",
        "at 20 s: the user stops the cluster",
        "after failures: RestartPolicy(on='failure')",
        "the 3rd time that several tasks could run, the 2nd in line does",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Plan(",
        "1",
        "RestartPolicy()",
        "Plan(seed=seed)",
        "Plan(seed=[1])",
        "Plan(seed=1 + 1)",
        "Plan(**{'seed': 1})",
        "Plan(unknown=1)",
        "Plan(providers=-1)",
        "Plan(instances=0)",
        "Plan(instances='many')",
        "Plan(faults=(Fault(kind=FaultKind.VANISH),))",
        "Plan(faults=(Fault(kind=FaultKind.NOTHING, at=1.0),))",
        "Plan(faults=(Fault(kind=FaultKind.COMMAND_FAILS, at=1.0),))",
        "Plan(actions=(Action(what=ActionKind.STOP, at=1.0, at_step=2),))",
        "Plan(handlers=(HandlerFault(kind=HandlerFaultKind.RAISES, handler='on_birthday'),))",
        "Plan(policy=RestartPolicy(attempts=0))",
        "Plan.replay('Plan()')",
        "Plan" * 100_000,
        "(" * 5_000 + ")" * 5_000,
    ],
)
def test_what_is_no_plan_is_refused(line: str) -> None:
    with pytest.raises(ConfigError):
        Plan.replay(line)


def test_a_replay_line_executes_nothing(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    for line in (
        f"Plan(seed=open({str(witness)!r}, 'w').write('x'))",
        f"__import__('pathlib').Path({str(witness)!r}).touch()",
        f"[Plan() for _ in (open({str(witness)!r}, 'w'),)][0]",
    ):
        with pytest.raises(ConfigError):
            Plan.replay(line)
    assert not witness.exists()


def test_ordinals_are_english() -> None:
    numbers = (1, 2, 3, 4, 11, 12, 13, 21, 22, 101, 111)
    assert [nth(number) for number in numbers] == [
        "1st",
        "2nd",
        "3rd",
        "4th",
        "11th",
        "12th",
        "13th",
        "21st",
        "22nd",
        "101st",
        "111th",
    ]
