"""``shem why``: the story of each instance of a run, read from the run's log."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import Final, TextIO

import click

from shem.cli.options import Mendable
from shem.cli.runlog import read_log
from shem.errors import ConfigError
from shem.lifecycle import Story

#: How many ids an error names at most.
_NAMED: Final = 10


@click.command("why")
@click.argument("instance", required=False)
@click.option(
    "--log",
    "file",
    type=click.Path(path_type=Path, allow_dash=True),
    default="-",
    help="The log of a run, as JSON lines; by default standard input.",
)
def command(instance: str | None, file: Path) -> None:
    """Tell why the instances of a run are where they are: what happened, who caused it, what comes next.

    Reads the log that `shem run … 2> run.log` has written, or is still writing. INSTANCE is the beginning of
    an instance's id; without it all of them are told of. Times are in UTC.
    """
    where = "standard input" if str(file) == "-" else str(file)
    try:
        with _opened(file) as lines:
            log = read_log(lines)
    except ConfigError as error:
        raise Mendable(f"{where}: {error}") from error
    except OSError as error:
        raise Mendable(f"cannot read {where}: {error.strerror}") from error
    for story in log.stories.values() if instance is None else [_one(log.stories, instance, where)]:
        click.echo(story.told())
    click.echo(f"(as far as the log tells, which is until {log.until:%Y-%m-%d %H:%M:%S} UTC)")


def _opened(file: Path) -> AbstractContextManager[TextIO]:
    # Whatever a service has written there is passed over, so it need not be text.
    if str(file) != "-":
        return file.open(encoding="utf-8", errors="replace")
    if sys.stdin.isatty():
        raise Mendable("which log? Give --log FILE, or pipe one in: shem why < run.log")
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    return nullcontext(sys.stdin)


def _one(stories: Mapping[str, Story], prefix: str, where: str) -> Story:
    fitting = [identifier for identifier in stories if identifier.startswith(prefix)]
    if len(fitting) == 1:
        return stories[fitting[0]]
    if fitting:
        raise Mendable(f"{prefix!r} begins the ids of several instances: {_names(fitting)}")
    known = _names(list(stories))
    raise Mendable(f"{where} tells of no instance whose id begins with {prefix!r}; it tells of: {known}")


def _names(identifiers: list[str]) -> str:
    more = len(identifiers) - _NAMED
    return ", ".join(identifiers[:_NAMED]) + (f" and {more} more" if more > 0 else "")
