"""What an activity's root file system is made of: a tree, worked out from the host and an image.

A pure description: nothing is mounted here, the host's directories are only looked at. The init program
carries the steps out (`shem.devnet.runtime.init.mounts`).

Directories of the host or an image are shown whole where they can be. Where something has to be put inside of
one it is opened up: replaced by an own directory in which each of its entries is shown.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

Step = list[Any]

#: What of the host an activity sees, read-only, where its image brings no system of its own.
HOST_DIRECTORIES = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt", "nix", "gnu")
#: Always writable, and empty after each deploy.
STANDARD_VOLUMES = ("/golem/work", "/golem/input", "/golem/output", "/golem/out", "/golem/resource", "/tmp")
STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_VAR = ("cache", "lib", "local", "log", "spool")
#: Made anew for every activity, so an image's own are left out.
_OWN_DIRECTORIES = frozenset({"dev", "proc", "sys", "tmp", "run"})
_MOST_LINKS = 40


@dataclass(slots=True)
class Own:
    """A directory of the activity's own, maybe with a mount on it (a step without its path)."""

    children: dict[str, Node] = field(default_factory=dict)
    mount: Step | None = None


@dataclass(slots=True)
class Shown:
    """A file or directory of the host, read-only unless `kind` says otherwise.

    `over` holds what is mounted over entries of it, by relative path.
    """

    source: str
    kind: str = "ro"
    over: dict[str, Node] = field(default_factory=dict)


@dataclass(slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(slots=True)
class Text:
    """A file of its own with this text."""

    text: str


@dataclass(slots=True)
class Hidden:
    """An empty file or directory over one that must not be seen."""


Node = Own | Shown | Link | Text | Hidden


class RootTree:
    """A root file system under construction. Paths are absolute, inside it."""

    def __init__(self) -> None:
        self._root = Own()

    def put(self, path: str, node: Node) -> None:
        """Put a node at a path, in place of what is there; links on the way to it are followed."""
        names = [name for name in PurePosixPath(path).parts if name != "/"]
        if not names or ".." in names:
            raise ValueError(f"{path!r} is no absolute path below the root, or has '..' in it")
        self._put(self._root, names, node, _MOST_LINKS)

    def _put(self, directory: Own, names: Sequence[str], node: Node, links: int) -> None:
        walked: list[str] = []
        for index, name in enumerate(names[:-1]):
            below = directory.children.get(name)
            rest = names[index + 1 :]
            if isinstance(below, Link):
                if links == 0:
                    raise OSError(f"too many levels of symbolic links on the way to {'/'.join(names)}")
                onward = _resolved([*walked, name], below.target)
                self._put(self._root, [*onward, *rest], node, links - 1)
                return
            if isinstance(below, Shown) and os.path.isdir(below.source):
                if _can_be_covered(below.source, rest, node):
                    below.over["/".join(rest)] = node
                    return
                below = _opened(below)
                directory.children[name] = below
            if not isinstance(below, Own):
                below = Own()
                directory.children[name] = below
            walked.append(name)
            directory = below
        directory.children[names[-1]] = node

    def lay_over(self, source: Path, path: str = "") -> None:
        """Lay a directory's entries over what is there: directories are merged, anything else replaces."""
        for entry in _entries(source):
            where = f"{path}/{entry.name}"
            if path == "" and entry.name in _OWN_DIRECTORIES:
                continue
            node = _node_of(entry)
            if isinstance(node, Shown) and entry.is_dir() and self._is_directory(where):
                self.lay_over(Path(entry.path), where)
            else:
                self.put(where, node)

    def _is_directory(self, path: str, links: int = _MOST_LINKS) -> bool:
        """Whether a directory is there, links followed; what is shown is opened up on the way."""
        node: Node | None = self._root
        walked: list[str] = []
        names = [name for name in path.split("/") if name]
        for index, name in enumerate(names):
            if not isinstance(node, Own):
                return False
            below = node.children.get(name)
            if isinstance(below, Link):
                onward = _resolved([*walked, name], below.target)
                rest = names[index + 1 :]
                return links > 0 and self._is_directory("/".join([*onward, *rest]), links - 1)
            if isinstance(below, Shown) and os.path.isdir(below.source):
                below = _opened(below)
                node.children[name] = below
            walked.append(name)
            node = below
        return isinstance(node, Own)

    def steps(self) -> list[Step]:
        """The mounts that make it, in order."""
        return list(_steps("", self._root))


def _can_be_covered(source: str, rest: Sequence[str], node: Node) -> bool:
    """Whether `node` can be mounted over an entry that is there, and nothing need be opened up."""
    if isinstance(node, Link):
        return False
    path = source
    for name in rest:
        path = f"{path}/{name}"
        if os.path.islink(path):
            return False
    directory = isinstance(node, Own) or (isinstance(node, Shown) and os.path.isdir(node.source))
    return os.path.lexists(path) and (isinstance(node, Hidden) or os.path.isdir(path) == directory)


def _opened(shown: Shown) -> Own:
    own = Own({entry.name: _node_of(entry) for entry in _entries(Path(shown.source))})
    tree = RootTree()
    tree._root = own
    for path, node in shown.over.items():
        tree.put("/" + path, node)
    return own


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _node_of(entry: os.DirEntry[str]) -> Node:
    return Link(os.readlink(entry.path)) if entry.is_symlink() else Shown(entry.path)


def _resolved(walked: Sequence[str], target: str) -> list[str]:
    """Where a link at `walked` leads, as names from the root."""
    names = [] if target.startswith("/") else list(walked[:-1])
    for name in target.split("/"):
        if name == "..":
            names = names[:-1]
        elif name not in ("", "."):
            names.append(name)
    return names


def _steps(path: str, node: Node) -> Iterator[Step]:
    match node:
        case Own():
            if path:
                yield ["dir", path]
            if node.mount is not None:
                word, *rest = node.mount
                yield [word, path, *rest]
            for name, child in sorted(node.children.items()):
                yield from _steps(f"{path}/{name}", child)
        case Shown():
            if os.path.isdir(node.source):
                yield ["dir", path]
            yield ["bind", path, node.source, node.kind]
            for name, child in sorted(node.over.items()):
                yield from _steps(f"{path}/{name}", child)
        case Link():
            yield ["link", path, node.target]
        case Text():
            yield ["file", path, node.text]
        case Hidden():
            yield ["hide", path]


def is_whole_system(image: Path) -> bool:
    """Whether an image brings its own system directories, and so replaces the host's."""
    return any(os.path.lexists(image / name) for name in ("bin", "usr"))


def make_tree(
    image: Path | None,
    *,
    volumes: Mapping[str, str],
    hosts: str,
    hostname: str,
    hidden: Sequence[str],
    shared_memory: int,
) -> RootTree:
    """The root of one activity.

    Args:
        image: an image's directory, or None.
        volumes: host directory by path inside.
        hosts: text of ``/etc/hosts``.
        hostname: the activity's name.
        hidden: what of the host must not be seen, see `private_files`.
        shared_memory: size of ``/dev/shm`` in bytes.

    Raises:
        OSError: a directory of the host or the image cannot be read.
        ValueError: a volume's path is not absolute or has ``..`` in it.
    """
    tree = RootTree()
    whole = image is not None and is_whole_system(image)
    if not whole:
        _put_host(tree, hidden)
    if image is not None:
        tree.lay_over(image)
    _put_own(tree, shared_memory)
    tree.put("/etc/hosts", Text(hosts))
    if os.path.isfile(f"{image if whole else ''}/etc/hostname"):
        # Not worth opening up the whole directory where there is none.
        tree.put("/etc/hostname", Text(hostname + "\n"))
    for path, source in sorted(volumes.items()):
        tree.put(path, Own(mount=["bind", source, "rw"]))
    if not whole:
        # Last, because Python may well lie in what is the activity's own, such as /tmp.
        _put_interpreter(tree)
    return tree


def _put_host(tree: RootTree, hidden: Sequence[str]) -> None:
    for name in HOST_DIRECTORIES:
        path = f"/{name}"
        if os.path.islink(path):
            tree.put(path, Link(os.readlink(path)))
        elif os.path.isdir(path):
            tree.put(path, Shown(path))
    for path in hidden:
        tree.put(path, Hidden())
    tree.put("/root", Own(mount=["tmpfs", "mode=0700,size=64m"]))
    tree.put("/var", Own({name: Own() for name in _VAR}, mount=["tmpfs", "mode=0755,size=64m"]))
    tree.put("/var/run", Link("/run"))
    tree.put("/var/tmp", Link("/tmp"))


def _put_interpreter(tree: RootTree) -> None:
    for directory in interpreter_directories():
        if not directory.startswith(("/usr/", "/opt/", "/nix/", "/gnu/")):
            tree.put(directory, Shown(directory))
    for path, target in _interpreter_links():
        tree.put(path, Link(target))


def _put_own(tree: RootTree, shared_memory: int) -> None:
    tree.put("/proc", Own(mount=["proc"]))
    tree.put("/run", Own(mount=["tmpfs", "mode=0755,size=64m"]))
    devices = Own()
    for name in _DEVICES:
        if os.path.exists(f"/dev/{name}"):
            devices.children[name] = Shown(f"/dev/{name}", "dev")
    for name, target in _DEVICE_LINKS.items():
        devices.children[name] = Link(target)
    devices.children["pts"] = Own(mount=["devpts"])
    devices.children["shm"] = Own(mount=["tmpfs", f"mode=1777,size={shared_memory}"])
    tree.put("/dev", devices)


def private_files(directory: str = "/etc") -> Iterator[str]:
    """What in a directory of the host is not meant for all. Only root could see it: for others, nothing."""
    pending = [directory] if os.geteuid() == 0 else []
    while pending:
        for entry in _entries(Path(pending.pop())):
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                continue
            if not mode & stat.S_IROTH:
                yield entry.path
            elif stat.S_ISDIR(mode):
                pending.append(entry.path)


def interpreter_directories() -> list[str]:
    """Where the running Python and its packages lie, with all links resolved."""
    found: list[str] = []
    for prefix in (sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix):
        real = os.path.realpath(prefix)
        if real not in ("/", "/usr", os.path.realpath(os.path.expanduser("~"))) and real not in found:
            found.append(real)
    return found


def interpreter() -> str:
    """The running Python's program, in a directory whose path has no links in it."""
    directory, name = os.path.split(sys.executable)
    return f"{os.path.realpath(directory)}/{name}"


def _interpreter_links() -> Iterator[tuple[str, str]]:
    """Links outside of those directories by which its program is reached."""
    covered = tuple(f"{directory}/" for directory in (*interpreter_directories(), "/usr", "/opt"))
    path = interpreter()
    for _hop in range(_MOST_LINKS):
        if not os.path.islink(path):
            return
        target = os.readlink(path)
        if not path.startswith(covered):
            yield path, target
        path = os.path.normpath(os.path.join(os.path.dirname(path), target))


def command_path(image: Path | None) -> str:
    """PATH inside: the running Python's directory first, unless an image brings a system of its own."""
    if image is not None and is_whole_system(image):
        return STANDARD_PATH
    return f"{os.path.dirname(interpreter())}:{STANDARD_PATH}"
