"""Finding the service class that a user names on the command line.

A target is ``module:Service``, ``package.module:Outer.Service``, ``FILE.py:Service``, or either without the
name where only one class can be meant. The user's module is imported and nothing in it is called.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType

import click

#: What makes a class a service as far as the command line is concerned.
HANDLERS = ("start", "run", "shutdown")


def load_service(target: str) -> type:
    """The class that `target` names.

    A file is imported as Python would run it: its folder is put on the module path, and its
    ``if __name__ == "__main__"`` block is not executed. A module is looked for in the current folder first.

    Raises `click.UsageError` (exit code 2) where the file or module is missing or does not import, where the
    name is missing or is no service class, and where no name is given and not exactly one class fits.
    """
    place, name = split_target(target)
    module = _import_file(Path(place)) if _is_file(place) else _import_module(place)
    return _named(module, place, name) if name else _only(module, place)


def split_target(target: str) -> tuple[str, str]:
    """File or module, and the class's name, which is empty where none is given."""
    place, colon, name = target.rpartition(":")
    if colon and place and name.replace(".", "").isidentifier():
        return place, name
    # A colon that ends the target, or that belongs to a path such as C:\work\service.py, names no class.
    return target.rstrip(":"), ""


def _is_file(place: str) -> bool:
    return place.endswith(".py") or os.sep in place or Path(place).is_file()


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise click.UsageError(f"there is no file {str(path)!r}")
    path = path.resolve()
    name = path.stem if path.stem.isidentifier() else "service_file"
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) != str(path):
        # Another module of this name is in use (a file called json.py, say) and must stay what it is.
        name = f"{name}__{path.parent.name}".replace("-", "_").replace(".", "_")
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise click.UsageError(f"{str(path)!r} is no Python file")
    _put_on_path(str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    # The user's module may raise anything while it is imported, `SystemExit` included.
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise click.UsageError(_does_not_import(str(path), error)) from error
    return module


def _import_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise click.UsageError(
            f"{name!r} is neither a file nor the name of a module; expected module:Service or FILE.py:Service"
        )
    _put_on_path(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise click.UsageError(
                f"there is no module {error.name!r} in {os.getcwd()} or among the installed ones"
            ) from error
        raise click.UsageError(_does_not_import(name, error)) from error
    # As above: the user's module may raise anything.
    except (Exception, SystemExit) as error:
        raise click.UsageError(_does_not_import(name, error)) from error


def _put_on_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _does_not_import(what: str, error: BaseException) -> str:
    said = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, SyntaxError):
        return f"{what} does not import:\n{said}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    if not frames:
        return f"{what} does not import: {said}"
    last = frames[-1]
    line = f"\n  {last.line}" if last.line else ""
    return f"{what} does not import: {last.filename}, line {last.lineno}{line}\n{said}"


def _is_users(filename: str) -> bool:
    """Whether a file of a traceback is the user's own: not shem, not installed, not part of Python."""
    library = ("site-packages" in filename) or filename.startswith((sysconfig.get_path("stdlib"), "<frozen"))
    return not library and filename != __file__


def _named(module: ModuleType, place: str, name: str) -> type:
    found: object = module
    for part in name.split("."):
        if not hasattr(found, part):
            others = _one_of([cls.__name__ for cls in _services(module)])
            raise click.UsageError(f"{place} has no {name!r}{others}")
        found = getattr(found, part)
    if not isinstance(found, type):
        raise click.UsageError(
            f"{place}:{name} is no class but {type(found).__name__}; name the service's class itself"
        )
    missing = [f"{handler}()" for handler in HANDLERS if not callable(getattr(found, handler, None))]
    if missing:
        raise click.UsageError(f"{place}:{name} is no service: it has no {', '.join(missing)}")
    return found


def _only(module: ModuleType, place: str) -> type:
    services = _services(module)
    if not services:
        raise click.UsageError(f"{place} defines no subclass of shem's Service; name the class: {place}:NAME")
    if len(services) > 1:
        several = ", ".join(f"{place}:{cls.__name__}" for cls in services)
        raise click.UsageError(f"{place} defines several services; name one of them: {several}")
    return services[0]


def _services(module: ModuleType) -> list[type]:
    """Subclasses of shem's `Service` that the module itself defines, in its order."""
    # A module that defines one has imported the base class, so it need not, and must not, be imported here.
    base = getattr(sys.modules.get("shem.service.service"), "Service", None)
    if not isinstance(base, type):
        return []
    own = [
        cls
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, base) and cls.__module__ == module.__name__
    ]
    return list(dict.fromkeys(own))


def _one_of(names: list[str]) -> str:
    return f"; it defines {', '.join(names)}" if names else ""
