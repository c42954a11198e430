"""The runtime that really runs commands: each activity's processes in a sandbox of their own.

There are two levels, chosen once by trying. With *namespaces* an activity has its own users, processes,
mounts, network, IPC and host name, made without root; the host's system directories, or an image, are its
read-only root. As a *plain process* it only has a private directory, and the paths that a command names are
mapped into it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from shem.clock import Clock
from shem.devnet.runtime import rootfs
from shem.devnet.runtime.base import CommandError, DeployOptions, OutputListener, RuntimeSpec
from shem.devnet.runtime.init import files, wire
from shem.devnet.runtime.link import InitLink, LinkLost, SetupFailed
from shem.devnet.runtime.mapping import Outward, PathMap
from shem.devnet.runtime.output import OutputPipe
from shem.devnet.runtime.spawner import Spawner
from shem.errors import ConfigError
from shem.log import get_logger

_log = get_logger("devnet.runtime")

#: Where commands start, and their HOME.
HOME = "/golem/work"
_TRIAL_TIMEOUT = 10.0
_LEAST_SHARED_MEMORY = 64 * 1024 * 1024
_GIB = 1024**3
_NAMESPACES = (
    "own user, process, mount, network, IPC and host-name namespaces; "
    "the host's system directories or an image as read-only root"
)


@dataclass(frozen=True, slots=True)
class _Layout:
    """What one deploy makes of its options: the init program's plan and what commands are given."""

    plan: dict[str, Any]
    env: dict[str, str]
    paths: PathMap | None
    directory: str


class SandboxFactory:
    """Makes sandboxes. The level of isolation is found out here, which takes some 50 ms.

    Args:
        images: image directory by hash.
        strict_images: fail a deploy whose image is not in `images`, as a real provider would.
        clock: names the common directory of all activities.
        plain: use plain processes even where namespaces would work.

    Raises:
        ConfigError: an image is not a directory, or the init program cannot be started at all.
    """

    def __init__(
        self,
        images: Mapping[str, Path] | None = None,
        strict_images: bool = False,
        *,
        clock: Clock,
        plain: bool = False,
    ) -> None:
        self._images: dict[str, Path] = {}
        for image_hash, path in (images or {}).items():
            if not Path(path).is_dir():
                raise ConfigError(f"image {image_hash}: {path} is not a directory")
            self._images[image_hash.lower()] = Path(path).resolve()
        self._strict_images = strict_images
        self._hidden = list(rootfs.private_files())
        self._sandboxes: set[Sandbox] = set()
        self._count = 0
        self._spawner = Spawner()
        self._root = _make_common_directory(clock)
        self._closed = False
        obstacle = "it was asked for" if plain else self._try_namespaces()
        self._namespaces = obstacle is None
        self._isolation = _NAMESPACES
        if obstacle is not None:
            self._isolation = (
                f"plain processes in private directories, with paths mapped ({obstacle}); not isolated: "
                "the host's files, processes and network; an image's files are not write-protected"
            )
            if not plain:
                _log.warning("activities are not isolated from this machine", reason=obstacle)

    @property
    def isolation(self) -> str:
        """What keeps activities apart from each other and from the host, in one line for people."""
        return self._isolation

    @property
    def namespaces(self) -> bool:
        """Whether activities get namespaces of their own."""
        return self._namespaces

    async def create(self, spec: RuntimeSpec) -> Sandbox:
        """A new sandbox, not deployed yet. Raises `CommandError` when the factory is closed."""
        if self._closed:
            raise CommandError(f"activity {spec.activity_id}: this provider's runtimes are closed")
        self._count += 1
        sandbox = Sandbox(self, spec, f"{self._root}/{self._count}")
        self._sandboxes.add(sandbox)
        return sandbox

    async def aclose(self) -> None:
        """Destroy every sandbox that is left and remove the common directory. Idempotent."""
        self._closed = True
        await asyncio.gather(*(sandbox.destroy() for sandbox in list(self._sandboxes)))
        self._spawner.close()
        files.remove_tree(self._root)

    def _forget(self, sandbox: Sandbox) -> None:
        self._sandboxes.discard(sandbox)

    def _image_of(self, spec: RuntimeSpec) -> tuple[Path | None, str]:
        """The image's directory and what to say of it. Raises `CommandError` for an unknown one if strict."""
        if spec.image_hash is None:
            return None, "no image asked for; running on the host's root, read-only"
        image = self._images.get(spec.image_hash.lower())
        if image is not None:
            return image, f"image {spec.image_hash} from {image}"
        if self._strict_images:
            raise CommandError(
                f"image {spec.image_hash} is not known to this provider; name its directory for this hash"
            )
        _log.warning(
            "image not known, running on the host's root", image=spec.image_hash, activity=spec.activity_id
        )
        return None, f"image {spec.image_hash} is not known here; running on the host's root, read-only"

    def _lay_out(
        self, spec: RuntimeSpec, options: DeployOptions, directory: str, image: Path | None
    ) -> _Layout:
        """Work one deploy out. Raises `CommandError`."""
        volumes = _volumes(options.volumes)
        hostname = options.hostname or f"activity-{spec.activity_id[:8]}"
        env = {
            "PATH": rootfs.command_path(image),
            "HOME": HOME,
            "USER": "root",
            "LOGNAME": "root",
            "LANG": "C.UTF-8",
            "HOSTNAME": hostname,
            **options.env,
        }
        if not self._namespaces:
            return _lay_out_plain(directory, volumes, env, options.env, image)
        hosts = ["127.0.0.1\tlocalhost", "::1\tlocalhost", f"127.0.1.1\t{hostname}"]
        hosts += [f"{address}\t{name}" for name, address in options.hosts.items()]
        folders = {path: f"volume-{number}" for number, path in enumerate(volumes)}
        try:
            tree = rootfs.make_tree(
                image,
                volumes={path: f"{directory}/{folder}" for path, folder in folders.items()},
                hosts="\n".join(hosts) + "\n",
                hostname=hostname,
                hidden=self._hidden,
                shared_memory=max(_LEAST_SHARED_MEMORY, int(spec.mem_gib * _GIB / 2)),
            )
        except OSError as error:
            raise CommandError(f"the root file system cannot be made: {error}") from error
        plan = {
            "namespaces": True,
            "directory": directory,
            "folders": {
                "root": 0o755,
                **{folder: 0o1777 if path == "/tmp" else 0o755 for path, folder in folders.items()},
            },
            "place": f"{directory}/root",
            "steps": tree.steps(),
            "hostname": hostname,
            "readable": ["/"],
            "writable": volumes,
        }
        return _Layout(plan, env, None, directory)

    def _try_namespaces(self) -> str | None:
        """Set a sandbox up to the end, once; why it cannot be done, or None. Raises `ConfigError`."""
        tree = rootfs.make_tree(
            None,
            volumes={},
            hosts="",
            hostname="trial",
            hidden=self._hidden,
            shared_memory=_LEAST_SHARED_MEMORY,
        )
        plan = {
            "namespaces": True,
            "place": self._root,
            "steps": tree.steps(),
            "hostname": "trial",
            "must_run": rootfs.interpreter(),
            "try_only": True,
        }
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                number = self._spawner.spawn(theirs)
            except OSError as error:
                raise ConfigError(
                    f"the sandbox's init program cannot be started with this Python: {error}"
                ) from error
            theirs.close()
            ours.settimeout(_TRIAL_TIMEOUT)
            channel = wire.BlockingChannel(ours)
            try:
                channel.send(plan)
                return _outcome(channel)
            except TimeoutError:
                self._spawner.kill(number)
                return f"setting one up took more than {_TRIAL_TIMEOUT:.0f} s"


def _outcome(channel: wire.BlockingChannel) -> str | None:
    while (messages := channel.receive()) is not None:
        for message, _fds in messages:
            return None if "ready" in message else str(message.get("failed") or message.get("crashed"))
    return "its init program ended at once"


def _make_common_directory(clock: Clock) -> str:
    while True:
        path = os.path.join(os.path.realpath(tempfile.gettempdir()), f"shem-devnet-{clock.unique_id()[:12]}")
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
            return path


def _volumes(wanted: Sequence[str]) -> list[str]:
    """All volumes of a deploy, normal and unique. Raises `CommandError` for a path that can be none."""
    found = list(rootfs.STANDARD_VOLUMES)
    for path in wanted:
        normal = str(PurePosixPath(path))
        if not normal.startswith("/") or ".." in PurePosixPath(path).parts or "\0" in path:
            raise CommandError(f"volume {path!r}: give an absolute path without '..'")
        normal = "/" + normal.strip("/")
        if normal == "/" or files.below(normal, ("/proc", "/sys", "/dev")):
            raise CommandError(f"volume {path!r} would cover what every process needs; choose another place")
        if normal not in found:
            found.append(normal)
    return found


def _lay_out_plain(
    directory: str, volumes: list[str], env: dict[str, str], user_env: Mapping[str, str], image: Path | None
) -> _Layout:
    """The layout without namespaces. Raises `CommandError` for an image that needs them."""
    root = f"{directory}/root"
    places = {path: root + path for path in ("/golem", *volumes)}
    links: dict[str, str] = {}
    if image is not None:
        if rootfs.is_whole_system(image):
            raise CommandError(
                f"the image {image} brings a system of its own; that needs namespaces, which are not in use here"
            )
        for path, source in _image_entries(image, "", volumes):
            links["root" + path] = source
            top = "/" + path.split("/")[1]
            if not os.path.lexists(top):
                places[top] = root + top
            elif top != "/golem" and top not in volumes:
                del links["root" + path]
                _log.warning(
                    "part of the image cannot be shown without namespaces", image=str(image), path=path
                )
    paths = PathMap(places, [root, *([str(image)] if image is not None else [])])
    env = {
        **env,
        "HOME": places[HOME],
        "TMPDIR": places["/tmp"],
        **{name: paths.inward(value) for name, value in user_env.items()},
    }
    plan = {
        "namespaces": False,
        "directory": directory,
        "folders": {f"root{path}": 0o755 for path in volumes},
        "links": links,
        "readable": [root, *([str(image)] if image is not None else [])],
        "writable": [root + path for path in volumes],
    }
    return _Layout(plan, env, paths, directory)


def _image_entries(image: Path, path: str, volumes: Sequence[str]) -> list[tuple[str, str]]:
    """What of a partial image to link to: directories, or their entries where a volume lies in between."""
    found = []
    for entry in sorted(os.listdir(f"{image}{path}")):
        where = f"{path}/{entry}"
        if where in volumes:
            continue
        if any(volume.startswith(where + "/") for volume in volumes):
            if os.path.isdir(f"{image}{where}"):
                found += _image_entries(image, where, volumes)
        else:
            found.append((where, f"{image}{where}"))
    return found


class Sandbox:
    """One activity's sandbox; `shem.devnet.runtime.base.Runtime` says what its methods promise."""

    def __init__(self, factory: SandboxFactory, spec: RuntimeSpec, directory: str) -> None:
        self._factory = factory
        self._spec = spec
        self._directory = directory
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._link: InitLink | None = None
        self._layout: _Layout | None = None
        self._links: list[tuple[InitLink, str]] = []
        self._started = False
        self._destroyed = False

    @property
    def lost(self) -> asyncio.Future[str]:
        """Resolved with a reason when the sandbox dies without having been asked to."""
        return self._lost

    @property
    def pid(self) -> int | None:
        """Process id of the keeper, with whose death everything in the sandbox ends; None unless deployed."""
        return None if self._link is None else self._link.pid

    async def deploy(self, options: DeployOptions) -> str:
        """Make the file system and process 1; the DeployResult as JSON text. Raises `CommandError`."""
        if self._destroyed or self._lost.done():
            raise CommandError(f"activity {self._spec.activity_id} has ended; it cannot be deployed any more")
        if self._link is not None:
            raise CommandError(f"activity {self._spec.activity_id} is deployed already")
        image, said = self._factory._image_of(self._spec)
        directory = f"{self._directory}-{len(self._links) + 1}"
        layout = self._factory._lay_out(self._spec, options, directory, image)
        try:
            link = InitLink(self._factory._spawner, self._on_lost)
        except OSError as error:
            raise CommandError(f"the sandbox's init program cannot be started: {error}") from error
        self._link, self._layout = link, layout
        self._links.append((link, directory))
        try:
            await link.set_up(layout.plan)
        except SetupFailed as failure:
            self._link = None
            await link.end()
            raise CommandError(f"the sandbox cannot be set up: {failure}") from failure
        except asyncio.CancelledError:
            self._link = None
            link.begin_end()
            raise
        return json.dumps(
            {
                "valid": {"Ok": f"{said}; {self._factory.isolation}"},
                "vols": [
                    {"name": f"volume-{number}", "path": path}
                    for number, path in enumerate(_volumes(options.volumes))
                ],
                "startMode": "blocking",
            }
        )

    async def start(self, args: Sequence[str]) -> None:
        """Allow commands. `args` have no meaning here. Raises `CommandError` before `deploy`."""
        self._deployed()
        self._started = True

    async def run(self, entry_point: str, args: Sequence[str], output: OutputListener) -> int:
        """Run a program to its end; returns its exit code. Raises `CommandError`."""
        link, layout = self._deployed()
        if not self._started:
            raise CommandError(f"activity {self._spec.activity_id} is not started; send start before run")
        argv = [entry_point, *args]
        if layout.paths is not None:
            argv = [layout.paths.inward(text) for text in argv]
        cwd = HOME if layout.paths is None else layout.paths.inward(HOME)
        outward: list[Outward] = []

        def pipe(stream: str) -> OutputPipe:
            if layout.paths is None:
                return OutputPipe(lambda data: output(stream, data))
            mapped = layout.paths.outward(lambda data: output(stream, data))
            outward.append(mapped)
            return OutputPipe(mapped)

        pipes = [pipe("stdout"), pipe("stderr")]
        try:
            fds = [pipe.hand_over() for pipe in pipes]
            answer, _none = await link.ask("run", fds, undo="kill", argv=argv, env=layout.env, cwd=cwd)
            for each in pipes:
                still_open = each.finish()
                if still_open is not None:
                    link.tell("discard", [still_open])
        except LinkLost as lost:
            raise CommandError(f"{entry_point} was cut off: {lost}") from None
        finally:
            for each in pipes:
                each.close()
            for mapped in outward:
                mapped.flush()
        if "error" in answer:
            raise CommandError(f"{entry_point} cannot be started: {answer['error']}")
        return int(answer["exit"])

    async def open_to_read(self, path: str) -> BinaryIO:
        """A regular file by its path inside. Raises `CommandError`."""
        return os.fdopen(await self._open(path, write=False), "rb")

    async def open_to_write(self, path: str) -> BinaryIO:
        """A new, empty file in a writable volume; missing directories are made. Raises `CommandError`."""
        return os.fdopen(await self._open(path, write=True), "wb")

    async def _open(self, path: str, *, write: bool) -> int:
        link, layout = self._deployed()
        inside = path if layout.paths is None else layout.paths.inward(path)
        what = f"{path} cannot be {'written' if write else 'read'}"
        try:
            answer, fds = await link.ask("open", path=inside, write=write)
        except LinkLost as lost:
            raise CommandError(f"{what}: {lost}") from None
        if not fds:
            raise CommandError(f"{what}: {answer.get('error', 'no file came')}")
        wire.close_all(fds[1:])
        return fds[0]

    def _deployed(self) -> tuple[InitLink, _Layout]:
        if self._lost.done():
            raise CommandError(f"activity {self._spec.activity_id} is lost: {self._lost.result()}")
        if self._link is None or self._layout is None:
            raise CommandError(f"activity {self._spec.activity_id} is not deployed; send deploy first")
        return self._link, self._layout

    async def stop(self) -> None:
        """End all processes and empty the volumes; `deploy` may follow."""
        self._link, self._layout, self._started = None, None, False
        for link, directory in self._links:
            await link.end()
            # Usually gone: the keeper removes it, unless it was killed.
            files.remove_tree(directory)

    async def refresh_usage(self) -> float:
        """CPU time used so far, in seconds, asked for now."""
        if self._link is not None and not self._lost.done():
            with contextlib.suppress(LinkLost):
                await self._link.ask("usage")
        return self.cpu_seconds()

    def cpu_seconds(self) -> float:
        """CPU time used so far, in seconds: at most about a second old, exact once stopped."""
        return sum(link.cpu for link, _directory in self._links)

    async def destroy(self) -> None:
        """End all processes and remove every file. Idempotent."""
        self._destroyed = True
        await self.stop()
        self._factory._forget(self)

    def _on_lost(self, reason: str) -> None:
        if self._link is not None and not self._lost.done():
            self._lost.set_result(reason)
