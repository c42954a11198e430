"""What one deploy makes of its options: the init program's plan, and what commands are given.

With namespaces the plan holds the mounts of a root file system. Without them there is only a private
directory, and commands are given its paths in place of the activity's.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from shem.devnet.runtime import rootfs
from shem.devnet.runtime.base import CommandError, DeployOptions, RuntimeSpec
from shem.devnet.runtime.init import files
from shem.devnet.runtime.mapping import PathMap
from shem.log import get_logger

_log = get_logger("devnet.runtime")

#: Where commands start, and their HOME.
HOME = "/golem/work"
_LEAST_SHARED_MEMORY = 64 * 1024 * 1024
_GIB = 1024**3
#: A volume there would cover what every process needs.
_RESERVED = ("/proc", "/sys", "/dev")


@dataclass(frozen=True, slots=True)
class Layout:
    """One deploy, worked out.

    `plan` is for the init program (the fields of `init.keeper.Plan`); `env` and `cwd` are every command's;
    `paths` maps what a command names, where the activity has no root of its own.
    """

    plan: dict[str, Any]
    env: dict[str, str]
    cwd: str
    volumes: list[str]
    paths: PathMap | None = None


def trial_plan(hidden: Sequence[str], place: str) -> dict[str, Any]:
    """A plan that sets everything up as for an activity and then ends. Raises `OSError`."""
    tree = rootfs.make_tree(
        None, volumes={}, hosts="", hostname="trial", hidden=hidden, shared_memory=_LEAST_SHARED_MEMORY
    )
    return {
        "namespaces": True,
        "place": place,
        "steps": tree.steps(),
        "hostname": "trial",
        "must_run": rootfs.interpreter(),
        "try_only": True,
    }


def with_namespaces(
    spec: RuntimeSpec, options: DeployOptions, directory: str, image: Path | None, hidden: Sequence[str]
) -> Layout:
    """The layout of an activity with a root of its own.

    Args:
        spec: the activity.
        options: the deploy's arguments.
        directory: the activity's own on the host, to be made.
        image: its image's directory, or None for the host's root.
        hidden: what of the host must not be seen.

    Raises:
        CommandError: an option makes no sense, or the host's or the image's files cannot be read.
    """
    volumes = volumes_of(options)
    hostname = _hostname(spec, options)
    hosts = ["127.0.0.1\tlocalhost", "::1\tlocalhost", f"127.0.1.1\t{hostname}"]
    hosts += [f"{address}\t{name}" for name, address in options.hosts.items()]
    folders = {path: f"volume-{number}" for number, path in enumerate(volumes)}
    try:
        tree = rootfs.make_tree(
            image,
            volumes={path: f"{directory}/{folder}" for path, folder in folders.items()},
            hosts="\n".join(hosts) + "\n",
            hostname=hostname,
            hidden=hidden,
            shared_memory=max(_LEAST_SHARED_MEMORY, int(spec.mem_gib * _GIB / 2)),
        )
    except OSError as error:
        raise CommandError(f"the root file system cannot be made: {error}") from error
    modes = {folder: 0o1777 if path == "/tmp" else 0o755 for path, folder in folders.items()}
    plan = {
        "namespaces": True,
        "directory": directory,
        "folders": {"root": 0o755, **modes},
        "place": f"{directory}/root",
        "steps": tree.steps(),
        "hostname": hostname,
        "addresses": _addresses(options),
        "readable": ["/"],
        "writable": volumes,
    }
    env = _environment(hostname, rootfs.command_path(image), options.env)
    return Layout(plan, env, HOME, volumes)


def plain(spec: RuntimeSpec, options: DeployOptions, directory: str, image: Path | None) -> Layout:
    """The layout of an activity that only has a private directory; arguments as for `with_namespaces`.

    Raises:
        CommandError: an option makes no sense, or the image needs a root of its own.
    """
    volumes = volumes_of(options)
    root = f"{directory}/root"
    places = {path: root + path for path in ("/golem", *volumes)}
    links: dict[str, str] = {}
    visible = [root]
    if image is not None:
        if rootfs.is_whole_system(image):
            raise CommandError(
                f"the image {image} brings its own system, which needs namespaces, and none are used here"
            )
        visible.append(str(image))
        for path in _image_entries(image, "", volumes):
            top = "/" + path.split("/")[1]
            if top not in places and os.path.lexists(top):
                _log.warning(
                    "part of an image cannot be shown without namespaces", image=str(image), path=path
                )
                continue
            places.setdefault(top, root + top)
            links["root" + path] = f"{image}{path}"
    paths = PathMap(places, visible)
    plan = {
        "namespaces": False,
        "directory": directory,
        "folders": {f"root{path}": 0o755 for path in volumes},
        "links": links,
        "readable": visible,
        "writable": [root + path for path in volumes],
    }
    mapped = {name: paths.inward(value) for name, value in options.env.items()}
    env = _environment(_hostname(spec, options), rootfs.command_path(None), mapped)
    env = {"TMPDIR": places["/tmp"], **env, "HOME": mapped.get("HOME", places[HOME])}
    return Layout(plan, env, places[HOME], volumes, paths)


def volumes_of(options: DeployOptions) -> list[str]:
    """All volumes of a deploy, normal and unique. Raises `CommandError` for a path that can be none."""
    found = list(rootfs.STANDARD_VOLUMES)
    for path in options.volumes:
        parts = PurePosixPath(path).parts
        if not path.startswith("/") or ".." in parts or "\0" in path:
            raise CommandError(f"{path!r} cannot be a volume: give an absolute path without '..'")
        normal = "/" + "/".join(parts[1:])
        if normal == "/" or files.below(normal, _RESERVED):
            raise CommandError(f"{path!r} cannot be a volume: it would cover what every process needs")
        if normal not in found:
            found.append(normal)
    return found


def _hostname(spec: RuntimeSpec, options: DeployOptions) -> str:
    return options.hostname or f"activity-{spec.activity_id[:8]}"


def _environment(hostname: str, path: str, wanted: Mapping[str, str]) -> dict[str, str]:
    return {
        "PATH": path,
        "HOME": HOME,
        "USER": "root",
        "LOGNAME": "root",
        "LANG": "C.UTF-8",
        "HOSTNAME": hostname,
        **wanted,
    }


def _addresses(options: DeployOptions) -> list[str]:
    """The activity's own addresses in its networks. Raises `CommandError` for one that is none."""
    found = []
    for net in options.net:
        address = net.get("nodeIp")
        if address is None:
            continue
        try:
            found.append(str(ipaddress.IPv4Address(address)))
        except ValueError:
            raise CommandError(f"{address!r} in `net` is no IPv4 address that an activity can have") from None
    return found


def _image_entries(image: Path, path: str, volumes: Sequence[str]) -> list[str]:
    """What of a partial image to link to: directories, or their entries where a volume lies in between."""
    found = []
    for entry in sorted(os.listdir(f"{image}{path}")):
        where = f"{path}/{entry}"
        if where in volumes:
            continue
        if not any(volume.startswith(where + "/") for volume in volumes):
            found.append(where)
        elif os.path.isdir(f"{image}{where}"):
            found += _image_entries(image, where, volumes)
    return found
