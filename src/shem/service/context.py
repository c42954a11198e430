"""What a handler holds of the activity it runs in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from os import PathLike
from typing import Any, Protocol

from shem.errors import ScriptMisuse
from shem.ids import ActivityId, NodeId
from shem.script import CommandHandle, Script
from shem.script.commands import Deploy
from shem.script.script import MEMORY_LIMIT, OnDownload
from shem.yagna.models import ActivityStateDoc


class ActivityView(Protocol):
    """What the context needs of an activity."""

    @property
    def id(self) -> ActivityId:
        """Id of the activity."""

    @property
    def provider_id(self) -> NodeId:
        """Node id of the provider."""

    @property
    def provider_name(self) -> str:
        """The name it gives itself; not unique."""

    async def usage(self) -> Mapping[str, float]:
        """Counters used so far, by name."""

    async def cost(self) -> Decimal:
        """What it has cost so far, in GLM: usage times agreed price."""

    async def observe(self) -> ActivityStateDoc:
        """Where the node says it is."""


class WorkContext:
    """The activity of a service, as its handlers see it (`self._ctx`).

    Commands go into scripts made with `new_script`. The older form works too: `run` and its like gather
    commands in the context, and `commit` makes a script of them. Since that form comes from a time when
    deploying was implicit, its first script is preceded by `deploy` and `start` unless they have been sent.
    """

    def __init__(self, activity: ActivityView) -> None:
        self._activity = activity
        self._gathered: Script | None = None
        self._deployed = False

    @property
    def id(self) -> ActivityId:
        """Id of the activity."""
        return self._activity.id

    @property
    def provider_id(self) -> NodeId:
        """Node id of the provider."""
        return self._activity.provider_id

    @property
    def provider_name(self) -> str:
        """The provider's name; not unique."""
        return self._activity.provider_name

    def new_script(self, timeout: timedelta | float | None = None, wait_for_results: bool = True) -> Script:
        """A new, empty script (see `Script`)."""
        return Script(timeout=timeout, wait_for_results=wait_for_results)

    async def get_usage(self) -> Mapping[str, float]:
        """Counters used so far, by name, such as ``golem.usage.cpu_sec``."""
        return await self._activity.usage()

    async def get_cost(self) -> Decimal:
        """What this activity has cost so far, in GLM."""
        return await self._activity.cost()

    async def get_raw_state(self) -> ActivityStateDoc:
        """The activity's state as the node tells it."""
        return await self._activity.observe()

    # --- the older form

    def deploy(self, **options: Any) -> CommandHandle:
        """As `Script.deploy`, gathered until `commit`."""
        return self._gather().deploy(**options)

    def start(self, *args: str) -> CommandHandle:
        """As `Script.start`, gathered until `commit`."""
        return self._gather().start(*args)

    def terminate(self) -> CommandHandle:
        """As `Script.terminate`, gathered until `commit`."""
        return self._gather().terminate()

    def run(self, cmd: str, *args: str, env: Mapping[str, str] | None = None) -> CommandHandle:
        """As `Script.run`, gathered until `commit`."""
        return self._gather().run(cmd, *args, env=env)

    def send_file(self, src_path: str | PathLike[str], dst_path: str) -> CommandHandle:
        """As `Script.upload_file`, gathered until `commit`."""
        return self._gather().upload_file(src_path, dst_path)

    def send_bytes(self, dst_path: str, data: bytes) -> CommandHandle:
        """As `Script.upload_bytes`, gathered until `commit`; mind the order of the arguments."""
        return self._gather().upload_bytes(data, dst_path)

    def send_json(self, json_path: str, data: object) -> CommandHandle:
        """As `Script.upload_json`, gathered until `commit`; mind the order of the arguments."""
        return self._gather().upload_json(data, json_path)

    def download_file(self, src_path: str, dst_path: str | PathLike[str]) -> CommandHandle:
        """As `Script.download_file`, gathered until `commit`."""
        return self._gather().download_file(src_path, dst_path)

    def download_bytes(
        self, src_path: str, on_download: OnDownload | None = None, limit: int = MEMORY_LIMIT
    ) -> CommandHandle:
        """As `Script.download_bytes`, gathered until `commit`."""
        return self._gather().download_bytes(src_path, on_download, limit)

    def download_json(
        self, src_path: str, on_download: OnDownload | None = None, limit: int = MEMORY_LIMIT
    ) -> CommandHandle:
        """As `Script.download_json`, gathered until `commit`."""
        return self._gather().download_json(src_path, on_download, limit)

    def commit(self, timeout: timedelta | float | None = None) -> Script:
        """A script of everything gathered. Raises `ScriptMisuse` where there is nothing."""
        gathered, self._gathered = self._gathered, None
        if gathered is None:
            raise ScriptMisuse("commit() without commands: call run() or another command first")
        if timeout is not None:
            gathered.timeout = Script(timeout=timeout).timeout
        gathered.implicit_deploy = True
        return gathered

    def _gather(self) -> Script:
        if self._gathered is None:
            self._gathered = Script()
        return self._gathered

    # --- for whoever runs the scripts

    def prelude(self, script: Script) -> Script | None:
        """The script to run before this one: deploy and start, where the older form leaves them out."""
        if not script.implicit_deploy or self._deployed or _deploys(script):
            return None
        prelude = Script()
        prelude.deploy()
        prelude.start()
        return prelude

    def note_sent(self, script: Script) -> None:
        """A script is on its way: remember whether it deploys."""
        self._deployed = self._deployed or _deploys(script)


def _deploys(script: Script) -> bool:
    return any(isinstance(command, Deploy) for command in script.commands)
