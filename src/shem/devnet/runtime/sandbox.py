"""The runtime that really runs commands: each activity's processes in a sandbox of their own.

There are two levels, chosen once by trying. With *namespaces* an activity has its own users, processes,
mounts, network, IPC and host name, made without root; the host's system directories, or an image, are its
read-only root. As a *plain process* it only has a private directory, and the paths that a command names are
mapped into it.

Memory, disk space and the number of processes are not limited; open files are, and core dumps are off. The
only user in a sandbox is root, whom the host sees as the user that runs the node: giving a file to anybody
else fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from shem.clock import Clock
from shem.devnet.runtime import layout, rootfs
from shem.devnet.runtime.base import CommandError, DeployOptions, OutputListener, RuntimeSpec
from shem.devnet.runtime.init import files, wire
from shem.devnet.runtime.link import Answer, InitLink, LinkLost, SetupFailed
from shem.devnet.runtime.mapping import Outward
from shem.devnet.runtime.output import OutputPipe
from shem.devnet.runtime.spawner import Spawner
from shem.errors import ConfigError
from shem.log import get_logger

_log = get_logger("devnet.runtime")

_TRIAL_TIMEOUT = 10.0
#: After a keeper's violent end the kernel needs a moment for its processes; seconds, and how often to look.
_REMOVAL_PAUSE = 0.1
_REMOVAL_TRIES = 20
_NAMESPACES = (
    "own user, process, mount, network, IPC and host-name namespaces; "
    "the host's system directories or an image as read-only root"
)
_PLAIN = (
    "plain processes in private directories, with paths mapped ({}); not isolated: the host's files, "
    "processes and network; an image's files are not write-protected"
)


class SandboxFactory:
    """Makes sandboxes. Which level works is found out here, which blocks for some 60 ms.

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
        self._closed = False
        self._root = _make_common_directory(clock)
        self._spawner = Spawner(self._root)
        try:
            obstacle = "as asked for" if plain else self._try_namespaces()
        except BaseException:
            self._spawner.close()
            files.remove_tree(self._root)
            raise
        self._namespaces = obstacle is None
        self._isolation = _NAMESPACES if obstacle is None else _PLAIN.format(obstacle)
        if obstacle is not None and not plain:
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
        try:
            await asyncio.gather(*(sandbox.destroy() for sandbox in list(self._sandboxes)))
        finally:
            self._spawner.close()
        await _remove(self._root)

    def forget(self, sandbox: Sandbox) -> None:
        """For the sandbox itself: it is destroyed."""
        self._sandboxes.discard(sandbox)

    def open_link(self, sandbox: Sandbox) -> InitLink:
        """For the sandbox itself: new processes for it. Raises `CommandError`."""
        try:
            return InitLink(self._spawner, sandbox.on_lost)
        except OSError as error:
            raise CommandError(f"the sandbox's init program cannot be started: {error}") from error

    def lay_out(self, spec: RuntimeSpec, options: DeployOptions, directory: str) -> tuple[layout.Layout, str]:
        """For the sandbox itself: its layout, and what to say about its image. Raises `CommandError`."""
        image, said = self._image_of(spec)
        if self._namespaces:
            return layout.with_namespaces(spec, options, directory, image, self._hidden), said
        return layout.plain(spec, options, directory, image), said

    def _image_of(self, spec: RuntimeSpec) -> tuple[Path | None, str]:
        if spec.image_hash is None:
            return None, "no image asked for; this is the host's root"
        image = self._images.get(spec.image_hash.lower())
        if image is not None:
            return image, f"image {spec.image_hash} is {image}"
        if self._strict_images:
            raise CommandError(
                f"image {spec.image_hash} is not known to this provider; name its directory for this hash"
            )
        activity = spec.activity_id
        _log.warning("image not known, running on the host's root", image=spec.image_hash, activity=activity)
        return None, f"image {spec.image_hash} is not known here; this is the host's root"

    def _try_namespaces(self) -> str | None:
        """Set everything up, once; why it cannot be done, or None. Raises `ConfigError`."""
        if sys.platform != "linux":
            return "namespaces are Linux's"
        try:
            plan = layout.trial_plan(self._hidden, self._root)
        except OSError as error:
            return f"the host's files cannot be read: {error}"
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                number = self._spawner.spawn(theirs)
            except OSError as error:
                raise ConfigError(f"the sandbox's init program cannot be started: {error}") from error
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
            if "ready" in message:
                return None
            return " ".join(str(message.get("failed") or message.get("crashed")).split())
    return "its init program ended at once"


def _make_common_directory(clock: Clock) -> str:
    parent = os.path.realpath(tempfile.gettempdir())
    while True:
        path = os.path.join(parent, f"shem-devnet-{clock.unique_id()[:12]}")
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
            return path


async def _remove(directory: str) -> None:
    """Remove a directory whose processes are dying, or dead."""
    for tries_left in reversed(range(_REMOVAL_TRIES)):
        try:
            files.remove_tree(directory)
            return
        except OSError as error:
            if not tries_left:
                _log.warning("a directory could not be removed", directory=directory, error=str(error))
        # No event tells when the last of them is gone.
        await asyncio.sleep(_REMOVAL_PAUSE)


class Sandbox:
    """One activity's sandbox; `shem.devnet.runtime.base.Runtime` says what its methods promise."""

    def __init__(self, factory: SandboxFactory, spec: RuntimeSpec, directory: str) -> None:
        self._factory = factory
        self._spec = spec
        self._directory = directory
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._link: InitLink | None = None
        self._layout: layout.Layout | None = None
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
        directory = f"{self._directory}-{len(self._links) + 1}"
        made, said = self._factory.lay_out(self._spec, options, directory)
        link = self._link = self._factory.open_link(self)
        self._links.append((link, directory))
        try:
            await link.set_up(made.plan)
        except SetupFailed as failure:
            self._give_up(link)
            await link.end()
            raise CommandError(f"the sandbox cannot be set up: {failure}") from failure
        except asyncio.CancelledError:
            # Its end needs no waiting for; `stop` and `destroy` wait for it all the same.
            self._give_up(link)
            raise
        if self._link is not link:
            raise CommandError(f"activity {self._spec.activity_id} was stopped while it was deployed")
        self._layout = made
        volumes = [{"name": f"volume-{number}", "path": path} for number, path in enumerate(made.volumes)]
        about = f"{said}; {self._factory.isolation}"
        return json.dumps({"valid": {"Ok": about}, "vols": volumes, "startMode": "blocking"})

    async def start(self, args: Sequence[str]) -> None:
        """Allow commands. `args` have no meaning here. Raises `CommandError` before `deploy`."""
        self._deployed()
        self._started = True

    async def run(self, entry_point: str, args: Sequence[str], output: OutputListener) -> int:
        """Run a program to its end; returns its exit code. Raises `CommandError`."""
        link, made = self._deployed()
        if not self._started:
            raise CommandError(f"activity {self._spec.activity_id} is not started; send start before run")
        argv = [entry_point, *args]
        listeners = {stream: partial(output, stream) for stream in ("stdout", "stderr")}
        mapped: dict[str, Outward] = {}
        if made.paths is not None:
            argv = [made.paths.inward(text) for text in argv]
            mapped = {stream: made.paths.outward(listener) for stream, listener in listeners.items()}
        pipes: list[OutputPipe] = []
        try:
            for stream, listener in listeners.items():
                pipes.append(OutputPipe(mapped.get(stream, listener)))
            fds = [pipe.hand_over() for pipe in pipes]
            answer, _none = await link.ask("run", fds, undo="kill", argv=argv, env=made.env, cwd=made.cwd)
            for pipe in pipes:
                left_open = pipe.finish()
                if left_open is not None:
                    link.tell("discard", [left_open])
        except LinkLost as lost:
            raise CommandError(f"{entry_point} was cut off: {lost}") from None
        except (OSError, wire.WireError) as error:
            raise CommandError(f"{entry_point} cannot be started: {error}") from error
        finally:
            for pipe in pipes:
                pipe.close()
            for outward in mapped.values():
                outward.flush()
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
        link, made = self._deployed()
        inside = path if made.paths is None else made.paths.inward(path)
        what = f"{path} cannot be {'written' if write else 'read'}"
        try:
            message, fds = await link.ask("open", path=inside, write=write)
        except (LinkLost, wire.WireError) as error:
            raise CommandError(f"{what}: {error}") from None
        if made.paths is not None and "error" in message:
            message["error"] = made.paths.readable(message["error"])
        return _only_descriptor((message, fds), what)

    async def connect(self, port: int, host: str = "127.0.0.1") -> socket.socket:
        """A TCP connection, made inside, to what listens there; the socket is non-blocking and the caller's.

        `host` is an IPv4 address. Raises `CommandError`.
        """
        link, _made = self._deployed()
        what = f"no connection to {host}:{port} inside"
        try:
            answer = await link.ask("socket", family=int(socket.AF_INET))
        except LinkLost as lost:
            raise CommandError(f"{what}: {lost}") from None
        sock = socket.socket(fileno=_only_descriptor(answer, what))
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise CommandError(f"{what}: {error}") from error
            raise
        return sock

    async def stop(self) -> None:
        """End all processes and empty the volumes; `deploy` may follow."""
        self._link, self._layout, self._started = None, None, False
        for link, directory in list(self._links):
            await link.end()
            # The keeper has removed it already, unless it was killed.
            await _remove(directory)

    async def refresh_usage(self) -> float:
        """CPU time used so far, in seconds, measured now."""
        if self._link is not None and self._layout is not None:
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
        self._factory.forget(self)

    def on_lost(self, reason: str) -> None:
        """For the link: the processes ended unasked."""
        if self._layout is not None and not self._lost.done():
            self._lost.set_result(reason)

    def _give_up(self, link: InitLink) -> None:
        link.begin_end()
        if self._link is link:
            self._link = None

    def _deployed(self) -> tuple[InitLink, layout.Layout]:
        if self._lost.done():
            raise CommandError(f"activity {self._spec.activity_id} is lost: {self._lost.result()}")
        if self._link is None or self._layout is None:
            raise CommandError(f"activity {self._spec.activity_id} is not deployed; send deploy first")
        return self._link, self._layout


def _only_descriptor(answer: Answer, what: str) -> int:
    message, fds = answer
    if not fds:
        raise CommandError(f"{what}: {message.get('error', 'nothing came')}")
    wire.close_all(fds[1:])
    return fds[0]
