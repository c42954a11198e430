"""Scripts: lists of commands that a handler yields, and the results that come back.

`commands` are the single commands as values, `results` what becomes of them, `script` the builder. Sending a
script to an activity is the engine's business.
"""

from shem.script.commands import Command
from shem.script.results import CommandHandle, CommandResult, ScriptResults
from shem.script.script import Script

__all__ = ["Command", "CommandHandle", "CommandResult", "Script", "ScriptResults"]
