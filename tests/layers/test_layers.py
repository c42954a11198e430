"""The layers of the architecture, checked against what the modules really import.

The import graph is computed from the source, so imports inside functions and under `TYPE_CHECKING` count as
much as all others. Which module belongs to which layer stands in ``[tool.shem]`` of pyproject.toml.
"""

from __future__ import annotations

import ast
import itertools
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
PACKAGE = "shem"


@dataclass(frozen=True)
class Import:
    file: Path
    line: int
    importer: str
    imported: str


@dataclass(frozen=True)
class Aside:
    """A package beside the layers: how high it may reach, and what else it may use."""

    up_to: int
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rules:
    layers: tuple[tuple[str, ...], ...]
    aside: Mapping[str, Aside]
    facade_users: tuple[str, ...] = ()

    @classmethod
    def from_toml(cls, table: Mapping[str, Any]) -> Rules:
        return cls(
            tuple(tuple(layer) for layer in table["layers"]),
            {
                name: Aside(entry["up_to"], tuple(entry.get("also", ())))
                for name, entry in table["aside"].items()
            },
            tuple(table["facade_users"]),
        )

    def entry(self, module: str) -> str | None:
        """The longest listed name that is the module or a package around it."""
        names = [*(name for layer in self.layers for name in layer), *self.aside]
        fitting = [name for name in names if within(module, name)]
        return max(fitting, key=len, default=None)

    def layer(self, entry: str) -> int | None:
        return next((number for number, layer in enumerate(self.layers) if entry in layer), None)

    def describe(self, module: str) -> str:
        if module == PACKAGE:
            return f"{module} (facade)"
        entry = self.entry(module)
        assert entry is not None
        layer = self.layer(entry)
        return f"{module} ({'aside' if layer is None else f'layer {layer}'})"

    def allows(self, importer: str, imported: str) -> bool:
        """Whether one covered module may import another."""
        if importer == PACKAGE:
            return True
        if imported == PACKAGE:
            return any(within(importer, user) for user in self.facade_users)
        source, target = self.entry(importer), self.entry(imported)
        assert source is not None
        assert target is not None
        low, high = self.layer(source), self.layer(target)
        if low is not None:
            # What stands aside is for the last layer only.
            return low == len(self.layers) - 1 if high is None else high <= low
        rule = self.aside[source]
        if (
            any(within(imported, name) for name in rule.also)
            or within(source, target)
            or within(target, source)
        ):
            return True
        return high is not None and high <= rule.up_to


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def modules_under(root: Path) -> dict[str, Path]:
    """All modules of the package that lies in `root`, by their full name."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(module: str, path: Path, modules: Mapping[str, Path]) -> Iterator[Import]:
    """Every import of the package's own modules, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        for name in imported_names(node, module, is_package=path.name == "__init__.py", modules=modules):
            if within(name, PACKAGE):
                yield Import(path, getattr(node, "lineno", 0), module, name)


def imported_names(
    node: ast.AST, module: str, *, is_package: bool, modules: Mapping[str, Path]
) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            around = module.split(".")
            around = around[: len(around) - node.level + is_package]
            base = ".".join([*around, *base.split(".")] if base else around)
        for alias in node.names:
            whole = f"{base}.{alias.name}"
            yield whole if whole in modules else base
    elif isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("import_module", "__import__") and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield argument.value


def is_only_a_docstring(path: Path) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def circles(edges: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """One circle per group of modules that can all reach each other."""
    reach: dict[str, set[str]] = {}
    for start in edges:
        seen: set[str] = set()
        todo = list(edges[start])
        while todo:
            module = todo.pop()
            if module not in seen:
                seen.add(module)
                todo += edges.get(module, ())
        reach[start] = seen
    told: set[str] = set()
    for start in sorted(edges):
        if start in reach[start] and start not in told:
            told |= {module for module in reach[start] if start in reach.get(module, ())}
            yield shortest_way(edges, start)


def shortest_way(edges: Mapping[str, set[str]], start: str) -> list[str]:
    """The shortest way from a module back to itself."""
    ways = [[start, after] for after in sorted(edges[start])]
    for way in ways:
        if way[-1] == start:
            return way
        ways += [[*way, after] for after in sorted(edges.get(way[-1], ())) if after not in way[1:]]
    raise AssertionError(f"{start} is in no circle")


def problems(root: Path, rules: Rules) -> list[str]:
    """Everything that breaks the rules, each in one line."""
    modules = modules_under(root)
    found: list[str] = []
    edges: dict[str, set[str]] = {}
    lines: dict[tuple[str, str], str] = {}
    for module, path in modules.items():
        name = path.relative_to(root)
        covered = module == PACKAGE or rules.entry(module) is not None
        if not covered and not is_only_a_docstring(path):
            found.append(f"{name}:1: {module} belongs to no layer; add it to [tool.shem] in pyproject.toml")
        for item in imports_of(module, path, modules):
            where = f"{name}:{item.line}"
            if item.imported not in modules:
                found.append(f"{where}: {module} imports {item.imported}, which does not exist")
                continue
            edges.setdefault(module, set()).add(item.imported)
            lines.setdefault((module, item.imported), where)
            if not covered or (item.imported != PACKAGE and rules.entry(item.imported) is None):
                continue
            if not rules.allows(module, item.imported):
                found.append(f"{where}: {rules.describe(module)} imports {rules.describe(item.imported)}")
    for way in circles(edges):
        steps = ", ".join(f"{lines[a, b]} imports {b}" for a, b in itertools.pairwise(way))
        found.append(f"circle: {' → '.join(way)} ({steps})")
    return found


def read_rules() -> Rules:
    table = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    return Rules.from_toml(table["tool"]["shem"])


# --- the project itself


def test_no_module_imports_what_stands_above_it() -> None:
    found = problems(PROJECT / "src", read_rules())
    assert not found, "\n" + "\n".join(found)


def test_the_layers_name_only_what_exists() -> None:
    rules = read_rules()
    modules = modules_under(PROJECT / "src")
    named = [*(name for layer in rules.layers for name in layer), *rules.aside, *rules.facade_users]
    named += [name for aside in rules.aside.values() for name in aside.also]
    assert [name for name in named if name not in modules] == []


# --- the checker, on small trees

RULES = Rules(
    layers=(("shem.low",), ("shem.mid", "shem.pkg.part"), ("shem.pkg",), ("shem.top",)),
    aside={"shem.kit": Aside(1), "shem.lab": Aside(0, ("shem.kit",)), "shem.lab.high": Aside(2)},
    facade_users=("shem.top", "shem.lab"),
)


def check(root: Path, files: Mapping[str, str]) -> list[str]:
    for name, text in {"__init__.py": "", **files}.items():
        path = root / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return problems(root, RULES)


LOW, MID, TOP = {"low.py": ""}, {"mid.py": ""}, {"top.py": ""}


def test_imports_downwards_and_sideways_are_fine(tmp_path: Path) -> None:
    files = {
        **LOW,
        "mid.py": "from shem.low import x\nfrom shem.pkg.part import y\nimport os",
        "pkg/__init__.py": '"""Only words."""',
        "pkg/part.py": "import shem.low",
        "top.py": "from shem import low, mid\nimport shem",
    }
    assert check(tmp_path, files) == []


@pytest.mark.parametrize(
    "statement",
    [
        "from shem.mid import x",
        "import shem.mid",
        "import shem.mid as m",
        "from shem import mid",
        "from . import mid",
        "from .mid import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from shem.mid import x",
        "def f():\n    from shem.mid import x",
        "try:\n    import shem.mid\nexcept ImportError:\n    pass",
        "from importlib import import_module\nx = import_module('shem.mid')",
    ],
)
def test_an_import_upwards_is_found_wherever_it_stands(tmp_path: Path, statement: str) -> None:
    line = next(n for n, text in enumerate(statement.splitlines(), 1) if "mid" in text)
    found = check(tmp_path, {**MID, "low.py": statement})
    assert found == [f"shem/low.py:{line}: shem.low (layer 0) imports shem.mid (layer 1)"]


def test_the_longest_listed_name_decides(tmp_path: Path) -> None:
    files = {
        **MID,
        "pkg/__init__.py": "",
        "pkg/part.py": "import shem.pkg.rest",
        "pkg/rest.py": "import shem.mid",
    }
    assert check(tmp_path, files) == [
        "shem/pkg/part.py:1: shem.pkg.part (layer 1) imports shem.pkg.rest (layer 2)"
    ]


def test_a_relative_import_in_a_package_starts_at_the_package(tmp_path: Path) -> None:
    files = {"pkg/__init__.py": "from .rest import x\nfrom ..top import y", "pkg/rest.py": "", **TOP}
    assert check(tmp_path, files) == ["shem/pkg/__init__.py:2: shem.pkg (layer 2) imports shem.top (layer 3)"]


def test_a_circle_is_told_with_the_lines_that_close_it(tmp_path: Path) -> None:
    files = {
        "mid.py": "\nimport shem.pkg.part",
        "pkg/__init__.py": "",
        "pkg/part.py": "def f():\n    import shem.mid",
    }
    (found,) = check(tmp_path, files)
    assert found == (
        "circle: shem.mid → shem.pkg.part → shem.mid "
        "(shem/mid.py:2 imports shem.pkg.part, shem/pkg/part.py:2 imports shem.mid)"
    )


def test_a_module_that_imports_its_own_package_back_is_a_circle(tmp_path: Path) -> None:
    files = {"pkg/__init__.py": "from shem.pkg.rest import x", "pkg/rest.py": "from shem.pkg import x"}
    (found,) = check(tmp_path, files)
    assert found.startswith("circle: shem.pkg → shem.pkg.rest → shem.pkg ")


def test_two_circles_apart_are_told_apart(tmp_path: Path) -> None:
    files = {
        "mid.py": "import shem.pkg.part",
        "pkg/__init__.py": "",
        "pkg/part.py": "import shem.mid",
        "pkg/a.py": "import shem.pkg.b",
        "pkg/b.py": "import shem.pkg.a",
    }
    assert len(check(tmp_path, files)) == 2


def test_a_module_of_no_layer_is_told_unless_it_is_only_a_docstring(tmp_path: Path) -> None:
    files = {"new/__init__.py": '"""Words."""\n', "new/thing.py": "import shem.low", **LOW}
    assert check(tmp_path, files) == [
        "shem/new/thing.py:1: shem.new.thing belongs to no layer; add it to [tool.shem] in pyproject.toml"
    ]


def test_what_stands_aside_is_used_by_the_last_layer_only(tmp_path: Path) -> None:
    files = {"kit.py": "", "mid.py": "import shem.kit", "top.py": "import shem.kit"}
    assert check(tmp_path, files) == ["shem/mid.py:1: shem.mid (layer 1) imports shem.kit (aside)"]


def test_what_stands_aside_keeps_to_its_own_bounds(tmp_path: Path) -> None:
    files = {
        **LOW,
        **MID,
        "pkg/__init__.py": "",
        "kit.py": "import shem.mid\nimport shem.pkg\nimport shem.lab",
        "lab/__init__.py": "from shem import low\nimport shem.mid",
        "lab/more.py": "import shem.kit\nimport shem.lab.high",
        "lab/high.py": "import shem.pkg\nimport shem.kit",
    }
    assert check(tmp_path, files) == [
        "shem/kit.py:2: shem.kit (aside) imports shem.pkg (layer 2)",
        "shem/kit.py:3: shem.kit (aside) imports shem.lab (aside)",
        "shem/lab/__init__.py:2: shem.lab (aside) imports shem.mid (layer 1)",
        "shem/lab/high.py:2: shem.lab.high (aside) imports shem.kit (aside)",
    ]


def test_the_facade_may_import_anything_but_is_for_few(tmp_path: Path) -> None:
    files = {
        "__init__.py": "from shem.pkg import x\nfrom shem.kit import y",
        "kit.py": "",
        "mid.py": "from shem import x",
        "pkg/__init__.py": "",
        "top.py": "from shem import x",
    }
    assert check(tmp_path, files) == ["shem/mid.py:1: shem.mid (layer 1) imports shem (facade)"]


def test_an_import_of_what_does_not_exist_is_told(tmp_path: Path) -> None:
    found = check(tmp_path, {"mid.py": "from shem.gone import x"})
    assert found == ["shem/mid.py:1: shem.mid imports shem.gone, which does not exist"]
