"""`shem diagram`: what it writes, where to, and what it says when it cannot."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from shem.cli import main
from shem.diagrams import Format, render
from shem.lifecycle import ACTIVITY, AGREEMENT, SERVICE, Table

PLAIN_SERVICE = '''
class Plain:
    """Anything with the three handlers will do."""

    async def start(self):
        """Prepare the observations."""
        yield

    async def run(self):
        yield

    async def shutdown(self):
        yield

    async def on_terminated(self, move):
        """Tell the others."""
'''


@pytest.fixture(autouse=True)
def imports_undone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loading a user's module leaves nothing behind."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if not name.startswith("shem"):
            del sys.modules[name]


def diagram(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["diagram", *map(str, arguments)])


def test_without_arguments_it_prints_the_services_mermaid() -> None:
    result = diagram()
    assert result.exit_code == 0
    assert result.stdout == render(SERVICE, "mermaid")


@pytest.mark.parametrize(("name", "table"), [("agreement", AGREEMENT), ("activity", ACTIVITY)])
@pytest.mark.parametrize("format", ["mermaid", "dot", "svg", "markdown"])
def test_each_table_has_a_name_and_each_format_an_option(
    name: str, table: Table[Any, Any], format: str
) -> None:
    assert diagram(name, "--format", format).stdout == render(table, format)


def test_the_ending_of_the_file_tells_the_format(tmp_path: Path) -> None:
    for format in (Format.SVG, Format.DOT, Format.MARKDOWN, Format.MERMAID):
        path = tmp_path / f"x{format.suffix}"
        assert diagram("agreement", "-o", path).exit_code == 0
        assert path.read_text(encoding="utf-8") == render(AGREEMENT, format)


def test_a_folder_gets_a_file_of_the_usual_name(tmp_path: Path) -> None:
    assert diagram("-f", "svg", "-o", tmp_path).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["lifecycle.svg"]


def test_all_writes_every_table_in_every_format(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    folder = tmp_path / "new" / "folder"
    result = diagram("--all", folder)
    assert result.exit_code == 0
    names = {f"{stem}{f.suffix}" for stem in ("lifecycle", "agreement", "activity") for f in Format}
    assert {path.name for path in folder.iterdir()} == names
    assert {Path(line).name for line in result.stdout.splitlines()} == names
    assert (folder / "lifecycle.svg").read_text(encoding="utf-8") == render(SERVICE, "svg")


def test_without_the_extra_everything_but_png_still_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    monkeypatch.setitem(sys.modules, "font_lato", None)
    refused = diagram("-f", "png", "-o", tmp_path / "x.png")
    assert refused.exit_code == 2
    assert "pip install 'shem[diagrams]'" in refused.stderr
    assert not (tmp_path / "x.png").exists()
    partly = diagram("--all", tmp_path)
    assert partly.exit_code == 2
    assert "pip install 'shem[diagrams]'" in partly.stderr
    assert len(list(tmp_path.iterdir())) == 12


def test_a_png_goes_to_a_pipe_as_it_is() -> None:
    pytest.importorskip("resvg_py")
    assert diagram("agreement", "-f", "png").stdout_bytes.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "choose one of service, agreement, activity"),
        (["-o", "no/such/folder/x.svg"], "cannot write no/such/folder/x.svg"),
        (["--all", "x", "-f", "svg"], "leave out --format"),
        (["-f", "gif"], "gif"),
    ],
)
def test_what_is_wrong_is_said_with_exit_code_2(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = diagram(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


# --- with a service of the user's


def test_a_service_shows_its_handlers_on_the_states_they_run_in(tmp_path: Path) -> None:
    path = tmp_path / "plain.py"
    path.write_text(PLAIN_SERVICE)
    result = diagram(f"{path}:Plain", "-f", "markdown")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("# Lifecycle of Plain\n")
    states = result.stdout.partition("## States")[2].strip().splitlines()
    assert states == [
        "- **Starting**: start(): own; Prepare the observations.",
        "- **Running**: run(): own",
        "- **Stopping**: shutdown(): own",
        "- **Terminated**: on_terminated(): own; Tell the others.",
    ]


def test_the_file_for_a_service_is_named_after_its_class(tmp_path: Path) -> None:
    path = tmp_path / "plain.py"
    path.write_text(PLAIN_SERVICE)
    assert diagram(f"{path}:Plain", "-f", "svg", "-o", tmp_path).exit_code == 0
    svg = (tmp_path / "Plain.svg").read_text(encoding="utf-8")
    assert "Prepare the observations." in svg


def test_what_a_service_inherits_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "two.py"
    path.write_text(
        "from shem.service.service import Service\n"
        "class Base(Service):\n"
        "    async def start(self):\n        yield\n"
        "class Special(Base):\n"
        "    async def run(self):\n        yield\n"
    )
    states = (
        diagram(f"{path}:Special", "-f", "markdown").stdout.partition("## States")[2].strip().splitlines()
    )
    assert states == [
        "- **Starting**: start(): from Base",
        "- **Running**: run(): own",
        "- **Stopping**: shutdown(): default",
    ]
