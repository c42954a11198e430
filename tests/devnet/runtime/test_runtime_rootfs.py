"""The root file system as a tree: what shows where, worked out without mounting anything."""

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shem.devnet.runtime import rootfs
from shem.devnet.runtime.rootfs import Hidden, Link, Own, RootTree, Shown, Text


def fill(directory, files):
    """Make files from {relative path: content}; a content of None makes a directory, "->x" a link."""
    for path, content in files.items():
        place = Path(directory) / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            place.mkdir(exist_ok=True)
        elif content.startswith("->"):
            place.symlink_to(content[2:])
        else:
            place.write_text(content)


class View:
    """What a process would see: the steps, interpreted one after another as the init program's mounts are."""

    def __init__(self, steps):
        self.layers = []  # (path, host source, "dir" or literal text)
        self.links = {}
        for step in steps:
            word, path, *rest = step
            if word == "bind":
                self.layers.append((path, rest[0]))
            elif word == "link":
                self.links[path] = rest[0]
            elif word == "file":
                self.layers.append((path, ("text", rest[0])))
            elif word == "hide":
                self.layers.append((path, None))
            elif word == "tmpfs":
                self.layers.append((path, ("empty", "")))

    def read(self, path):
        """Text of the file at a path without links in it, or None."""
        for at, source in reversed(self.layers):
            if path != at and not path.startswith(at + "/"):
                continue
            if source is None or isinstance(source, tuple):
                return source[1] if source and source[0] == "text" and path == at else None
            place = Path(source + path[len(at) :])
            return place.read_text() if place.is_file() else None
        return None


names = st.sampled_from(["a", "b", "c"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
trees = st.dictionaries(paths, st.sampled_from(["1", "2"]), max_size=5).map(
    # A file cannot also be a directory: keep only the paths that are nobody's parent.
    lambda files: {p: text for p, text in files.items() if not any(q.startswith(p + "/") for q in files)}
)


@settings(max_examples=60, deadline=None)
@given(host=trees, image=trees)
def test_an_image_lies_over_the_host_file_by_file(host, image):
    with tempfile.TemporaryDirectory() as place:
        fill(f"{place}/host", {f"x/{path}": f"host {text}" for path, text in host.items()} | {"x": None})
        fill(f"{place}/image", {f"x/{path}": f"image {text}" for path, text in image.items()} | {"x": None})
        tree = RootTree()
        tree.put("/x", Shown(f"{place}/host/x"))
        tree.lay_over(Path(place) / "image")
        view = View(tree.steps())
        for path, text in image.items():
            assert view.read(f"/x/{path}") == f"image {text}"
        for path, text in host.items():
            # Covered where the image has something else at the path, above it or below it.
            covered = any(
                path == other or path.startswith(other + "/") or other.startswith(path + "/")
                for other in image
            )
            if not covered:
                assert view.read(f"/x/{path}") == f"host {text}"


@settings(max_examples=60, deadline=None)
@given(host=trees, at=paths)
def test_a_file_put_inside_a_shown_directory_changes_nothing_beside_it(host, at):
    with tempfile.TemporaryDirectory() as place:
        fill(place, {f"x/{path}": f"host {text}" for path, text in host.items()} | {"x": None})
        tree = RootTree()
        tree.put("/x", Shown(f"{place}/x"))
        tree.put(f"/x/{at}", Text("mine"))
        view = View(tree.steps())
        assert view.read(f"/x/{at}") == "mine"
        for path, text in host.items():
            if path != at and not path.startswith(at + "/") and not at.startswith(path + "/"):
                assert view.read(f"/x/{path}") == f"host {text}"


def test_a_directory_is_not_opened_up_for_what_can_be_mounted_over_an_entry(tmp_path):
    fill(tmp_path, {"etc/hosts": "old", "etc/passwd": "p", "etc/secret": "s", "etc/private/key": "k"})
    tree = RootTree()
    tree.put("/etc", Shown(f"{tmp_path}/etc"))
    tree.put("/etc/hosts", Text("new"))
    tree.put("/etc/secret", Hidden())
    tree.put("/etc/private", Hidden())
    steps = tree.steps()
    assert [step[0] for step in steps] == ["dir", "bind", "file", "hide", "hide"]
    view = View(steps)
    assert view.read("/etc/hosts") == "new"
    assert view.read("/etc/passwd") == "p"
    assert view.read("/etc/secret") is None
    assert view.read("/etc/private/key") is None


def test_what_was_mounted_over_an_entry_stays_when_the_directory_is_opened_up_later(tmp_path):
    fill(tmp_path, {"etc/hosts": "old", "etc/passwd": "p", "etc/private/key": "k"})
    tree = RootTree()
    tree.put("/etc", Shown(f"{tmp_path}/etc"))
    tree.put("/etc/hosts", Text("new"))
    tree.put("/etc/private", Hidden())
    tree.put("/etc/extra", Text("more"))
    view = View(tree.steps())
    assert view.read("/etc/hosts") == "new"
    assert view.read("/etc/extra") == "more"
    assert view.read("/etc/passwd") == "p"
    assert view.read("/etc/private/key") is None


@pytest.mark.parametrize("target", ["/usr/lib", "usr/lib", "./usr/../usr/lib"])
def test_links_on_the_way_are_followed_inside_the_tree(tmp_path, target):
    fill(tmp_path, {"usr/lib/a": "a"})
    tree = RootTree()
    tree.put("/usr", Shown(f"{tmp_path}/usr"))
    tree.put("/lib", Link(target))
    tree.put("/lib/b", Text("b"))
    view = View(tree.steps())
    assert view.read("/usr/lib/b") == "b"
    assert view.read("/usr/lib/a") == "a"
    assert view.links["/lib"] == target


def test_a_link_that_leads_out_of_the_root_leads_to_the_root(tmp_path):
    tree = RootTree()
    tree.put("/way", Link("../../../etc"))
    tree.put("/way/x", Text("x"))
    assert View(tree.steps()).read("/etc/x") == "x"


def test_a_circle_of_links_is_an_error():
    tree = RootTree()
    tree.put("/a", Link("/b"))
    tree.put("/b", Link("/a"))
    with pytest.raises(OSError, match="too many levels"):
        tree.put("/a/x", Text("x"))


@pytest.mark.parametrize("path", ["/", "", "/a/../b"])
def test_a_path_must_lie_below_the_root(path):
    with pytest.raises(ValueError, match="path"):
        RootTree().put(path, Own())


def make(image=None, **changed):
    arguments = {"volumes": {}, "hosts": "h", "hostname": "n", "hidden": (), "shared_memory": 1}
    return rootfs.make_tree(image, **{**arguments, **changed})


def test_the_host_shows_its_system_directories_and_nothing_of_its_users():
    steps = make().steps()
    shown = {step[2] for step in steps if step[0] == "bind"}
    assert "/usr" in shown
    assert not shown & {"/", "/home", "/root", "/var", "/tmp", "/run", "/proc", "/sys"}
    prefixes = set(rootfs.interpreter_directories())
    allowed = tuple(f"/{name}" for name in (*rootfs.HOST_DIRECTORIES, "dev"))
    assert all(path.startswith(allowed) or path in prefixes for path in shown)


def test_an_image_with_a_system_of_its_own_shows_nothing_of_the_host(tmp_path):
    fill(
        tmp_path, {"usr/bin/tool": "t", "bin": "->usr/bin", "etc/hostname": "old", "run/x": "x", "app/a": "a"}
    )
    steps = make(tmp_path).steps()
    sources = [step[2] for step in steps if step[0] == "bind" and step[3] != "dev"]
    assert all(source.startswith(str(tmp_path)) for source in sources)
    view = View(steps)
    assert view.read("/app/a") == "a"
    assert view.read("/etc/hostname") == "n\n"
    assert view.read("/etc/hosts") == "h"
    assert view.read("/run/x") is None
    assert view.links["/bin"] == "usr/bin"
    assert rootfs.command_path(tmp_path) == rootfs.STANDARD_PATH


def test_a_partial_image_shows_over_the_host_and_volumes_over_both(tmp_path):
    fill(tmp_path, {"golem/run/p.py": "p", "golem/work/seed": "s", "opt/app/x": "x"})
    steps = make(
        tmp_path, volumes={"/golem/work": "/v0", "/golem/new": "/v1", "/opt/app/data": "/v2"}
    ).steps()
    view = View(steps)
    assert view.read("/golem/run/p.py") == "p"
    assert view.read("/golem/work/seed") is None
    assert view.read("/opt/app/x") == "x"
    writable = {step[1]: step[2] for step in steps if step[0] == "bind" and step[3] == "rw"}
    assert writable == {"/golem/work": "/v0", "/golem/new": "/v1", "/opt/app/data": "/v2"}


def test_a_python_inside_of_what_is_the_activitys_own_is_still_there(tmp_path, monkeypatch):
    """As in a virtual environment below /tmp."""
    fill(tmp_path, {"venv/bin/python3": "->/opt/base/bin/python3", "venv/lib/x": "x"})
    for name in ("prefix", "exec_prefix"):
        monkeypatch.setattr(rootfs.sys, name, f"{tmp_path}/venv")
    monkeypatch.setattr(rootfs.sys, "executable", f"{tmp_path}/venv/bin/python3")
    top = "/" + tmp_path.parts[1]
    steps = make(volumes={top: "/v0"}).steps()
    assert View(steps).read(f"{tmp_path}/venv/lib/x") == "x"
    binds = [step[1] for step in steps if step[0] == "bind"]
    assert binds.index(top) < binds.index(f"{tmp_path}/venv")
    assert rootfs.command_path(None).startswith(f"{tmp_path}/venv/bin:")


def test_links_by_which_the_program_of_python_is_reached_are_made(tmp_path, monkeypatch):
    fill(
        tmp_path,
        {
            "base/bin/python3.11": "p",
            "links/python3": "->../more/py",
            "more/py": f"->{tmp_path}/base/bin/python3.11",
        },
    )
    for name in ("prefix", "exec_prefix", "base_prefix", "base_exec_prefix"):
        monkeypatch.setattr(rootfs.sys, name, f"{tmp_path}/base")
    monkeypatch.setattr(rootfs.sys, "executable", f"{tmp_path}/links/python3")
    steps = make(volumes={"/" + tmp_path.parts[1]: "/v0"}).steps()
    links = {step[1]: step[2] for step in steps if step[0] == "link"}
    assert links[f"{tmp_path}/links/python3"] == "../more/py"
    assert links[f"{tmp_path}/more/py"] == f"{tmp_path}/base/bin/python3.11"
    assert View(steps).read(f"{tmp_path}/base/bin/python3.11") == "p"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees other people's files")
def test_what_is_not_meant_for_everybody_is_found(tmp_path):
    fill(
        tmp_path,
        {"open": "o", "secret": "s", "dir/key": "k", "dir/open": "o", "closed/x": "x", "l": "->secret"},
    )
    for name in ("secret", "dir/key"):
        (tmp_path / name).chmod(0o640)
    (tmp_path / "closed").chmod(0o700)
    found = {os.path.relpath(path, tmp_path) for path in rootfs.private_files(str(tmp_path))}
    assert found == {"secret", "dir/key", "closed"}
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) & stat.S_IROTH
