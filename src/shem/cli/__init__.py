"""The command line: one module per command, nothing here that a library user would miss.

Commands print what they were asked for on standard output and logs on standard error; errors that a user can
mend are one line and exit code 2.
"""

from __future__ import annotations

from importlib import import_module

import click

#: Commands and the modules they live in; a module is imported only when its command is asked for.
COMMANDS: dict[str, str] = {
    "check": "shem.cli.check",
    "devnet": "shem.cli.devnet",
    "diagram": "shem.cli.diagram",
    "run": "shem.cli.run",
    "why": "shem.cli.why",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(COMMANDS[cmd_name]).command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="shem")
def main() -> None:
    """Services on the Golem Network, each instance an explicit finite-state machine."""
