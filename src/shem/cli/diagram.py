"""``shem diagram``: the state machines as pictures, on standard output or as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click

from shem.cli.target import load_service
from shem.diagrams import Format, handler_notes, render
from shem.errors import ConfigError
from shem.lifecycle import ACTIVITY, AGREEMENT, SERVICE, State, Table

#: The tables by the name they have on the command line; the first one's files are called ``lifecycle.*``.
TABLES: Final[dict[str, Table[Any, Any]]] = {
    "service": SERVICE,
    "agreement": AGREEMENT,
    "activity": ACTIVITY,
}

_STEMS: Final = {"service": "lifecycle"}


class _Refused(click.ClickException):
    """Something the user can mend: one line, and the exit code of wrong usage."""

    exit_code = 2


@click.command("diagram")
@click.argument("name", default="service", metavar="[NAME|MODULE:SERVICE|FILE.py[:SERVICE]]")
@click.option(
    "--format",
    "-f",
    "format_name",
    type=click.Choice([format.value for format in Format]),
    help="What to write. Default: what the ending of -o says, else mermaid.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="A file, or a folder for a file of the usual name.",
)
@click.option(
    "--all",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write every table in every format into this folder.",
)
def command(name: str, format_name: str | None, output: Path | None, folder: Path | None) -> None:
    """Draw a state machine.

    NAME is service (the default), agreement or activity. With a service class of yours, the service's
    lifecycle shows which of its handlers runs in which state; its module is imported, nothing else is run.
    """
    try:
        if folder is not None:
            if output is not None or format_name is not None:
                raise click.UsageError("--all writes every format; leave out --format and --output")
            _write_all(folder)
            return
        format = _format(format_name, output)
        stem, content = _draw(name, format)
        _write(content, output, stem + format.suffix)
    except ConfigError as error:
        raise _Refused(str(error)) from error


def _format(name: str | None, output: Path | None) -> Format:
    if name is not None:
        return Format(name)
    return (Format.of_suffix(output.suffix) if output is not None else None) or Format.MERMAID


def _draw(name: str, format: Format) -> tuple[str, str | bytes]:
    """The usual file name, without ending, and the content."""
    if name in TABLES:
        return _STEMS.get(name, name), render(TABLES[name], format)
    if ":" not in name and not name.endswith(".py") and not Path(name).exists() and "." not in name:
        raise click.UsageError(
            f"there is no state machine {name!r}; choose one of {', '.join(TABLES)}, "
            "or name a service of yours as module:Service or FILE.py:Service"
        )
    service = load_service(name)
    notes: dict[State, tuple[str, ...]] = handler_notes(service)
    return service.__name__, render(SERVICE, format, title=f"Lifecycle of {service.__name__}", notes=notes)


def _write(content: str | bytes, output: Path | None, usual_name: str) -> None:
    data = content.encode() if isinstance(content, str) else content
    if output is None or str(output) == "-":
        if isinstance(content, bytes) and sys.stdout.isatty():
            raise click.UsageError("a PNG is no text for a terminal; write it to a file with -o FILE")
        click.echo(data, nl=False)
        return
    path = output / usual_name if output.is_dir() else output
    try:
        path.write_bytes(data)
    except OSError as error:
        raise _Refused(f"cannot write {path}: {error.strerror}") from error


def _write_all(folder: Path) -> None:
    """Every table in every format. Formats that need the missing extra are left out and reported last."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _Refused(f"cannot make the folder {folder}: {error.strerror}") from error
    left_out: ConfigError | None = None
    for name in TABLES:
        for format in Format:
            try:
                stem, content = _draw(name, format)
            except ConfigError as error:
                left_out = error
                continue
            _write(content, folder, stem + format.suffix)
            click.echo(folder / (stem + format.suffix))
    if left_out is not None:
        raise left_out
