"""The builder of scripts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec

from shem.errors import CommandSkipped, ConfigError, ScriptMisuse
from shem.script.commands import Command, Deploy, Download, Fetch, Run, Start, Terminate, Upload
from shem.script.results import CommandHandle, CommandResult, ScriptResults

#: Most bytes that a download into memory takes unless told otherwise.
MEMORY_LIMIT = 1024 * 1024

OnDownload = Callable[[Any], Awaitable[object]]


class Script:
    """A list of commands, run one after another as one batch on the provider.

    Each method appends a command and returns an awaitable of its `CommandResult`. Nothing happens until a
    handler yields the script; then every awaitable resolves: with the result, `CommandFailed`,
    `CommandSkipped` after a failed command, `ScriptTimeout`, `ScriptInterrupted` or `ActivityGone`.
    A failed script is also thrown into the handler at its `yield`.

    Args:
        timeout: the longest it may take, as seconds or a timedelta; None for no limit of its own.
        wait_for_results: False resumes the handler at once, while the script runs; `result = yield script`
            then gives an awaitable of all results. A failure is raised to those who await one of its
            results; where nobody does, the handler fails with it once it has come to its end.

    A script is sent once; making another costs nothing.
    """

    def __init__(self, *, timeout: timedelta | float | None = None, wait_for_results: bool = True) -> None:
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        if seconds is not None and not seconds > 0:
            raise ConfigError(f"a script's timeout must be more than 0 s, not {timeout!r}")
        self.timeout: float | None = seconds
        self.wait_for_results = wait_for_results
        self.results = ScriptResults()
        #: The handlers it passed through on its way out, innermost first.
        self.yielded_by: list[object] = []
        #: Whether it relies on the runtime being deployed without saying so (the older form of scripts).
        self.implicit_deploy = False
        self._handles: list[CommandHandle] = []
        self._callbacks: dict[int, OnDownload] = {}
        self._sent = False

    # --- commands ------------------------------------------------------------------------------------

    def deploy(self, **options: Any) -> CommandHandle:
        """Make the runtime's file system. Options go to the provider as they are (contract 3.4.4)."""
        return self._add(Deploy(options))

    def start(self, *args: str) -> CommandHandle:
        """Make the runtime ready to run programs."""
        return self._add(Start(args))

    def terminate(self) -> CommandHandle:
        """Take the runtime down; the activity stays."""
        return self._add(Terminate())

    def run(self, program: str, *args: str, env: Mapping[str, str] | None = None) -> CommandHandle:
        """Run a program by its path, with arguments, to its end. `env` is set through ``/bin/sh``."""
        texts = {str(key): str(value) for key, value in (env or {}).items()}
        return self._add(Run(str(program), tuple(str(arg) for arg in args), texts))

    def upload_file(self, src_path: str | PathLike[str], dst_path: str) -> CommandHandle:
        """Send a file from here to `dst_path` inside the runtime."""
        return self._add(Upload(Path(src_path), str(dst_path)))

    def upload_bytes(self, data: bytes, dst_path: str) -> CommandHandle:
        """Send bytes to a file inside the runtime."""
        return self._add(Upload(bytes(data), str(dst_path)))

    def upload_json(self, data: object, dst_path: str) -> CommandHandle:
        """Send a value as JSON to a file inside the runtime."""
        return self._add(Upload(msgspec.json.encode(data), str(dst_path)))

    def download_file(self, src_path: str, dst_path: str | PathLike[str]) -> CommandHandle:
        """Fetch a file from inside the runtime; `dst_path` appears here only once it is whole."""
        return self._add(Download(str(src_path), Path(dst_path)))

    def download_bytes(
        self, src_path: str, on_download: OnDownload | None = None, limit: int = MEMORY_LIMIT
    ) -> CommandHandle:
        """Fetch a file into memory; its bytes are the result's `value`, and go to `on_download` too.

        More than `limit` bytes is an error, never a truncation.
        """
        return self._add(Download(str(src_path), None, limit), on_download)

    def download_json(
        self, src_path: str, on_download: OnDownload | None = None, limit: int = MEMORY_LIMIT
    ) -> CommandHandle:
        """Fetch a file and parse it as JSON; the value is the result's `value`."""
        return self._add(Download(str(src_path), None, limit, as_json=True), on_download)

    def download_from_url(self, src_url: str, dst_path: str) -> CommandHandle:
        """Let the provider download a URL to a file inside the runtime."""
        return self._add(Fetch(str(src_url), str(dst_path)))

    def _add(self, command: Command, on_download: OnDownload | None = None) -> CommandHandle:
        if self._sent:
            raise ScriptMisuse(f"{command} was added to a script that has been sent; make a new script")
        handle = CommandHandle(command)
        if on_download is not None:
            self._callbacks[len(self._handles)] = on_download
        self._handles.append(handle)
        return handle

    # --- for whoever runs it -------------------------------------------------------------------------

    @property
    def commands(self) -> tuple[Command, ...]:
        """Its commands, in order."""
        return tuple(handle.command for handle in self._handles)

    @property
    def sent(self) -> bool:
        """Whether it has been sent."""
        return self._sent

    @property
    def decided(self) -> bool:
        """Whether the results of all its commands are there, good or bad."""
        return self.results.done and all(handle.done for handle in self._handles)

    @property
    def failure_heard(self) -> bool:
        """Whether anybody who awaited its results, or one of them, has been told that it failed."""
        return self.results.heard or any(handle.heard for handle in self._handles)

    def mark_sent(self) -> None:
        """It is being sent now. Raises `ScriptMisuse` the second time."""
        if self._sent:
            raise ScriptMisuse("a script can be sent only once; make a new one (`self._ctx.new_script()`)")
        self._sent = True

    async def succeed(self, result: CommandResult) -> None:
        """One command ended well. Runs its `on_download` first."""
        if (callback := self._callbacks.get(result.index)) is not None:
            await callback(result.value)
        self._handles[result.index].resolve(result)

    def finish(self) -> None:
        """All commands ended well."""
        self.results.resolve([handle.result() for handle in self._handles])

    def fail(self, error: BaseException, index: int | None = None) -> None:
        """The script failed, at command `index` or as a whole; whatever is open resolves to an error."""
        for place, handle in enumerate(self._handles):
            if handle.done:
                continue
            if index is not None and place > index:
                skipped = CommandSkipped(
                    f"command {place} ({handle.command}) was not run: command {index} failed before it"
                )
                skipped.__cause__ = error
                handle.fail(skipped)
            else:
                handle.fail(error)
        self.results.fail(error)

    def __repr__(self) -> str:
        return f"<Script: {', '.join(map(str, self.commands)) or 'empty'}>"
