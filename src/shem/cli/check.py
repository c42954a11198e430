"""``shem check``: a user's service against everything that can go wrong, in virtual time."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from shem.cli.options import Duration, Mendable, Param
from shem.cli.target import load_service
from shem.errors import ShemError
from shem.service.service import Service
from shem.testing.check import PLANS, SECONDS, check, replay
from shem.testing.drive import HORIZON
from shem.testing.laboratory import LIMITS, Laboratory
from shem.testing.limits import Limits
from shem.testing.places import short
from shem.testing.plan import Plan
from shem.testing.replies import Table, read_table
from shem.testing.report import Finding, Report

#: Lives have an end of their own; no start that takes longer can be seen through.
LONGEST_START = 0.9 * HORIZON


@click.command("check")
@click.argument("target", metavar="TARGET")
@click.option(
    "--plans", default=PLANS, show_default=True, type=click.IntRange(min=1), help="How many lives to live."
)
@click.option("--seed", default=0, show_default=True, type=int, help="Of the lives that are drawn by chance.")
@click.option(
    "-n",
    "--instances",
    default=1,
    show_default=True,
    type=click.IntRange(1, 20),
    help="How many instances there are in each life.",
)
@click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    type=Param(),
    metavar="NAME=VALUE",
    help="Constructor argument of every instance; may be repeated.",
)
@click.option(
    "--respond",
    "table_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE.json",
    help="What programs answer: patterns of command lines, and replies.",
)
@click.option("--start-timeout", type=Duration(), help="What start() may take.")
@click.option("--stop-timeout", type=Duration(), help="What shutdown() may take.")
@click.option(
    "--within", default=SECONDS, show_default=True, type=Duration(), help="How long to go on, in real time."
)
@click.option("--replay", "line", metavar="PLAN", help="Live through one plan again, and tell its story.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    target: str,
    plans: int,
    seed: int,
    instances: int,
    params: Sequence[tuple[str, Any]],
    table_file: Path | None,
    start_timeout: float | None,
    stop_timeout: float | None,
    within: float,
    line: str | None,
    as_json: bool,
) -> None:
    """Look for mistakes in a service: drive its own handlers through everything that can go wrong.

    TARGET is module:Service or FILE.py[:Service]. Nothing is rented, and no program is run: what programs
    answer comes from --respond, or the service's own `fake_provider(program, args)`, which returns a text, a
    shem.testing.Reply, or None; else they succeed with no output.

    Exit code: 0 where nothing was found, 1 where something was, 2 for wrong input.
    """
    service: type[Service] = load_service(target)
    try:
        table = read_table(table_file) if table_file is not None else {}
        limits = _limits(start_timeout, stop_timeout)
        if line is not None:
            sys.exit(_replay(service, line, dict(params), table, limits, as_json))
        report = check(
            service,
            plans=plans,
            seed=seed,
            instances=instances,
            params=dict(params),
            table=table,
            limits=limits,
            seconds=within,
            progress=_progress(plans) if sys.stderr.isatty() and not as_json else None,
        )
    except ShemError as error:
        raise Mendable(str(error)) from error
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2, ensure_ascii=False))
    else:
        _tell(report, _again(target, params, table_file, start_timeout, stop_timeout))
    sys.exit(1 if report.findings else 0)


def _limits(start: float | None, stop: float | None) -> Limits:
    if start is not None and start > LONGEST_START:
        raise Mendable(
            f"--start-timeout: {start:g} s is longer than the {LONGEST_START:g} s a life has for it"
        )
    return replace(LIMITS, start=start or LIMITS.start, stop=stop or LIMITS.stop)


def _progress(plans: int) -> Any:
    def show(number: int) -> None:
        if number % 10 == 0 or number == plans:
            end = "\n" if number == plans else ""
            click.echo(f"\r{number} of {plans} plans{end}", err=True, nl=False)

    return show


def _again(
    target: str,
    params: Sequence[tuple[str, Any]],
    table: Path | None,
    start: float | None,
    stop: float | None,
) -> str:
    """The command line that a replay line is put behind."""
    words = ["shem", "check", target]
    for name, value in params:
        words += ["-p", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    for option, given in (("--respond", table), ("--start-timeout", start), ("--stop-timeout", stop)):
        words += [option, str(given)] if given is not None else []
    return shlex.join([*words, "--replay"])


def _tell(report: Report, again: str) -> None:
    for number, finding in enumerate(report.findings, 1):
        _tell_one(number, finding)
        click.echo(f"   to replay: {again} {shlex.quote(repr(finding.plan))}\n")
    for note in report.notes:
        click.echo(f"note: {note}")
    click.echo(report.summary())


def _tell_one(number: int, finding: Finding) -> None:
    first, *rest = finding.story().splitlines()
    click.echo(click.style(f"{number}. {first}", bold=True))
    for line in rest:
        click.echo(f" {line}")


def _replay(
    service: type[Service],
    line: str,
    params: dict[str, Any],
    table: Table,
    limits: Limits,
    as_json: bool,
) -> int:
    """Tell the story of one plan; 1 where it shows a mistake."""
    plan = Plan.replay(line)
    with Laboratory(service, params=params, table=table, limits=limits) as laboratory:
        life, symptoms = replay(laboratory, plan, quiet=as_json)
    if as_json:
        told = {
            "plan": repr(plan),
            "story": life.story().splitlines(),
            "findings": [
                {"mistake": one.mistake.name.lower(), "said": one.said, "place": one.place}
                for one in symptoms
            ],
        }
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return 1 if symptoms else 0
    click.echo(life.story())
    for one in symptoms:
        where = f" (at {short(one.place)})" if one.place else ""
        click.echo(click.style(f"{one.mistake.summary}: {one.said}{where}", bold=True))
    if not symptoms:
        click.echo("nothing wrong is found in this life")
    return 1 if symptoms else 0
