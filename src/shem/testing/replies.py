"""What programs on simulated providers answer: from a table, from the service's own hook, or nothing at all.

A service may script its own providers with a static or class method ::

    @staticmethod
    def fake_provider(program, args):
        if program == "/bin/temperature":
            return "21.5\n"                                  # its standard output; it succeeds
        if program == "/bin/plot":
            return Reply('"/out/plot.png"', seconds=2, files={"/out/plot.png": b"…"})
        return None                                          # not scripted: it succeeds and writes nothing

Its answers may depend on its arguments alone. A table (`read_table`) does the same from outside the class,
and comes first. A file that no program wrote is asked for like a program: ``download``, with its path as the
one argument, and what it "writes" is the content; a URL that a provider fetches likewise, as ``fetch``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, TypeAlias

from shem.devnet.runtime.base import CommandError
from shem.errors import ConfigError
from shem.testing.runtime import Reply

#: The name of a service's own hook.
HOOK: Final = "fake_provider"
#: As what a file that nobody wrote, and a URL, are asked for.
DOWNLOAD, FETCH = "download", "fetch"
#: How long a program takes that nobody has scripted, in seconds.
USUAL_SECONDS: Final = 0.5

#: Patterns of programs, or of whole command lines, and what becomes of them; the first that fits counts.
Table: TypeAlias = Mapping[str, Reply]

_FIELDS: Final[dict[str, type | tuple[type, ...]]] = {
    "stdout": str,
    "stderr": str,
    "exit_code": int,
    "seconds": (int, float),
    "files": dict,
}


def command_line(program: str, args: Sequence[str]) -> str:
    """A command as patterns see it: program and arguments, with single spaces."""
    return " ".join((program, *args))


def read_table(path: Path) -> dict[str, Reply]:
    """A table from a JSON file: ``{"/bin/stats --json *": {"stdout": "…", "seconds": 2}, "/bin/x": "…"}``.

    Patterns are those of the shell (``*``, ``?``, ``[…]``), for the program or the whole command line. What
    they stand for is a text, which is the standard output, or an object with any of stdout, stderr,
    exit_code, seconds and files (paths and texts).

    Raises `ConfigError`, with the place, where the file is nothing of that kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a table of replies: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold an object of patterns and replies, not {_kind(content)}")
    return {pattern: _reply(f"{path}: {pattern!r}", told) for pattern, told in content.items()}


def _reply(where: str, told: object) -> Reply:
    if isinstance(told, str):
        return Reply(told, seconds=USUAL_SECONDS)
    if not isinstance(told, dict):
        raise ConfigError(f"{where} must be a text or an object, not {_kind(told)}")
    for name, value in told.items():
        if name not in _FIELDS:
            raise ConfigError(f"{where} has no field {name!r}; known are {', '.join(_FIELDS)}")
        if not isinstance(value, _FIELDS[name]) or isinstance(value, bool):
            raise ConfigError(f"{where}: {name} cannot be {_kind(value)}")
    files = told.get("files", {})
    if not all(isinstance(content, str) for content in files.values()):
        raise ConfigError(f"{where}: files must be paths and texts")
    given: dict[str, Any] = {"seconds": USUAL_SECONDS, **told}
    given["files"] = {name: content.encode() for name, content in files.items()}
    return Reply(**given)


def _kind(value: object) -> str:
    return "null" if value is None else f"{type(value).__name__} {value!r:.60}"


#: A service's own script of its providers; see the module.
Hook: TypeAlias = Callable[[str, Sequence[str]], object]


def hook_of(service_class: type) -> Hook | None:
    """The `fake_provider` of a class, if it has one.

    Raises `ConfigError` where it is neither a static nor a class method.
    """
    plain = next((one.__dict__[HOOK] for one in service_class.__mro__ if HOOK in one.__dict__), None)
    if plain is None:
        return None
    if not isinstance(plain, staticmethod | classmethod):
        raise ConfigError(
            f"{service_class.__name__}.{HOOK} must be a static or class method: "
            f"@staticmethod def {HOOK}(program, args)"
        )
    hook: Hook = getattr(service_class, HOOK)
    return hook


@dataclass(slots=True)
class Replies:
    """What providers answer.

    Attributes:
        table: what counts first.
        hook: what is asked next.
        ran: every program that was run, with its arguments, in order.
        unscripted: command lines that nobody had scripted, in order; they succeeded with no output.
        trouble: what the hook itself did wrong, the first time.
    """

    table: Table = field(default_factory=dict)
    hook: Hook | None = None
    ran: list[tuple[str, list[str]]] = field(default_factory=list)
    unscripted: dict[str, None] = field(default_factory=dict)
    trouble: ConfigError | None = None

    def __call__(self, program: str, args: Sequence[str]) -> Reply:
        """How a program behaves. An environment set with `env=` is left out of what is asked for."""
        program, arguments = _without_environment(program, list(args))
        self.ran.append((program, arguments))
        return self._find(program, arguments) or Reply(seconds=USUAL_SECONDS)

    def content(self, path: str) -> bytes:
        """A file that no program wrote. Raises `CommandError` where that is scripted to fail."""
        return self._content(DOWNLOAD, path)

    def fetched(self, url: str) -> bytes:
        """What is found at a URL. Raises `CommandError` where that is scripted to fail."""
        return self._content(FETCH, url)

    def _content(self, verb: str, name: str) -> bytes:
        reply = self._find(verb, [name]) or Reply()
        if reply.exit_code:
            raise CommandError(reply.stderr or f"{name} cannot be read: so scripted")
        return reply.stdout.encode()

    def _find(self, program: str, args: list[str]) -> Reply | None:
        line = command_line(program, args)
        for pattern, reply in self.table.items():
            if fnmatchcase(line, pattern) or fnmatchcase(program, pattern):
                return reply
        told = self._ask_hook(program, args)
        if told is None:
            self.unscripted[line] = None
        return told

    def _ask_hook(self, program: str, args: list[str]) -> Reply | None:
        if self.hook is None:
            return None
        about = f"{getattr(self.hook, '__qualname__', self.hook)}({program!r}, {args!r})"
        try:
            told = self.hook(program, args)
        except Exception as error:  # the hook is the user's and may raise anything; the check has to say so
            self.trouble = self.trouble or ConfigError(f"{about} raised {error!r}")
            return None
        if isinstance(told, str):
            return Reply(told, seconds=USUAL_SECONDS)
        if told is None:
            return None
        if isinstance(told, Reply) and _is_sound(told):
            return told
        self.trouble = self.trouble or ConfigError(
            f"{about} gave {_kind(told)}; return a Reply (texts, and files as bytes), a text, or None"
        )
        return None


def _is_sound(reply: Reply) -> bool:
    """Whether its outputs are texts and its files bytes, whatever their types were said to be."""
    texts: tuple[object, ...] = (reply.stdout, reply.stderr)
    contents: tuple[object, ...] = tuple(reply.files.values())
    return all(isinstance(one, str) for one in texts) and all(isinstance(one, bytes) for one in contents)


def _without_environment(program: str, args: list[str]) -> tuple[str, list[str]]:
    """The command inside the shell that sets its environment (see `shem.script.commands.Run`)."""
    if program == "/bin/sh" and len(args) > 3 and args[0] == "-c" and args[1].endswith('; exec "$@"'):
        return args[3], args[4:]
    return program, args


@dataclass(frozen=True, slots=True)
class ScriptedFetcher:
    """The internet as a test has scripted it; see `shem.devnet.transfer.Fetcher`."""

    fetched: Callable[[str], bytes]

    async def get(self, url: str) -> AsyncIterator[bytes]:
        """The content at a URL, in one piece."""
        yield self.fetched(url)

    async def put(self, url: str, content: AsyncIterator[bytes]) -> None:
        """Take everything, and keep nothing."""
        async for _piece in content:
            pass
