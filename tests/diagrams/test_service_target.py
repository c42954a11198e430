"""Finding the class that ``module:Service`` or ``FILE.py:Service`` means."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from shem.cli.target import load_service, split_target

SERVICE = """
from shem.service.service import Service

class {0}(Service):
    async def run(self):
        yield
"""

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a file, get its path as text; what is imported from it is forgotten at the end."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def writer(name: str, *parts: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(textwrap.dedent, parts)))
        return str(path)

    yield writer
    for name in set(sys.modules) - before:
        if not name.startswith("shem"):
            del sys.modules[name]


def refusal(target: str) -> str:
    with pytest.raises(click.UsageError) as caught:
        load_service(target)
    assert caught.value.exit_code == 2
    return caught.value.message


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("mod:Name", ("mod", "Name")),
        ("pkg.mod:Outer.Inner", ("pkg.mod", "Outer.Inner")),
        ("dir/file.py:Name", ("dir/file.py", "Name")),
        ("dir/file.py", ("dir/file.py", "")),
        ("file.py:", ("file.py", "")),
        (r"C:\work\file.py", (r"C:\work\file.py", "")),
        (r"C:\work\file.py:Name", (r"C:\work\file.py", "Name")),
    ],
)
def test_a_target_is_a_place_and_perhaps_a_name(target: str, parts: tuple[str, str]) -> None:
    assert split_target(target) == parts


def test_a_file_with_one_service_needs_no_name(write: Write) -> None:
    path = write("one.py", SERVICE.format("Only"), "class Helper: pass")
    assert load_service(path).__name__ == "Only"
    assert load_service(f"{path}:Only") is load_service(path)


def test_a_module_in_the_current_folder_is_found(write: Write) -> None:
    write("pack/__init__.py", "")
    write("pack/inner.py", SERVICE.format("Deep"))
    assert load_service("pack.inner:Deep") is load_service("pack.inner")


def test_a_class_inside_a_class_can_be_named(write: Write) -> None:
    path = write(
        "nested.py",
        """
        class Outer:
            class Inner:
                start = run = shutdown = lambda self: None
        """,
    )
    assert load_service(f"{path}:Outer.Inner").__qualname__ == "Outer.Inner"


def test_a_file_may_import_what_lies_beside_it(write: Write) -> None:
    write("beside.py", SERVICE.format("Base"))
    path = write("user.py", "from beside import Base\nclass Mine(Base): pass")
    assert load_service(path).__name__ == "Mine"


def test_a_file_named_like_a_loaded_module_does_not_replace_it(write: Write) -> None:
    import json

    path = write("json.py", SERVICE.format("Mine"))
    assert load_service(path).__name__ == "Mine"
    assert sys.modules["json"] is json


def test_the_main_block_is_not_run(write: Write) -> None:
    path = write("script.py", SERVICE.format("Mine"), "if __name__ == '__main__':\n    raise SystemExit(1)")
    assert load_service(path).__name__ == "Mine"


def test_a_missing_file_is_named(write: Write) -> None:
    assert refusal("no/such.py:Name") == "there is no file 'no/such.py'"


def test_a_missing_module_is_named(write: Write) -> None:
    assert "there is no module 'nosuchmodule'" in refusal("nosuchmodule:Name")
    write("apack/__init__.py", "")
    assert "there is no module 'apack.inner'" in refusal("apack.inner:Name")


def test_what_can_be_no_module_is_said_so() -> None:
    assert "neither a file nor the name of a module" in refusal("not a module")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("import nosuchthing", "line 1", "ModuleNotFoundError: No module named 'nosuchthing'"),
        ("x = 1\n\ndef f(:\n", "line 3", "SyntaxError"),
        ("def f():\n    raise RuntimeError('no key')\nf()", "line 2", "RuntimeError: no key"),
        ("import json\njson.loads('{')", "line 2", "JSONDecodeError"),
        ("raise SystemExit('bye')", "line 1", "SystemExit: bye"),
    ],
    ids=["import", "syntax", "raises", "raises in a library", "exits"],
)
def test_a_file_that_does_not_import_shows_its_own_error_and_line(
    write: Write, text: str, line: str, said: str
) -> None:
    path = write("broken.py", text)
    for message in (refusal(f"{path}:X"), refusal("broken:X")):
        assert "does not import" in message
        assert line in message
        assert said in message
    assert "broken" not in sys.modules


def test_a_missing_name_lists_what_there_is(write: Write) -> None:
    path = write("some.py", SERVICE.format("First"), SERVICE.format("Second"))
    assert refusal(f"{path}:Third") == f"{path} has no 'Third'; it defines First, Second"


def test_without_a_name_several_services_are_listed(write: Write) -> None:
    path = write("some.py", SERVICE.format("First"), SERVICE.format("Second"))
    assert f"name one of them: {path}:First, {path}:Second" in refusal(path)


def test_without_a_name_and_without_a_service_it_says_so(write: Write) -> None:
    path = write("none.py", "from shem.service.service import Service\nclass Helper: pass")
    assert "defines no subclass of shem's Service" in refusal(path)


def test_what_is_no_class_is_refused(write: Write) -> None:
    path = write("values.py", "service = 4\ndef make(): pass")
    assert "is no class but int" in refusal(f"{path}:service")
    assert "is no class but function" in refusal(f"{path}:make")


def test_a_class_without_the_handlers_is_refused(write: Write) -> None:
    path = write("half.py", "class Half:\n    def run(self): pass")
    assert refusal(f"{path}:Half").endswith("is no service: it has no start(), shutdown()")
