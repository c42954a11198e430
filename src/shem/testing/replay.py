"""Reading a value from the text that `repr` gave, without executing anything.

Only calls of the constructors named, members of the enums named, and literals are understood.
"""

from __future__ import annotations

import ast
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shem.errors import ConfigError

#: The longest line that is read, in characters.
LONGEST = 100_000


@dataclass(frozen=True, slots=True)
class Names:
    """What may be named in a line."""

    constructors: Mapping[str, Callable[..., Any]]
    enums: Mapping[str, type[enum.Enum]]


def read_value(line: str, names: Names) -> Any:
    """The value that a line describes. Raises `ConfigError` where it holds anything else."""
    if len(line) > LONGEST:
        raise ConfigError(f"the line has {len(line)} characters; {LONGEST} are the most that is read")
    try:
        tree = ast.parse(line.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{line!r:.200} cannot be read: {error}") from error
    try:
        return _value(tree.body, names)
    except ConfigError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{line!r:.200} makes no value: {error}") from error


def _value(node: ast.expr, names: Names) -> Any:
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Tuple(elts=parts):
            return tuple(_value(part, names) for part in parts)
        case ast.Attribute(value=ast.Name(id=kind), attr=member) if kind in names.enums:
            found = names.enums[kind].__members__.get(member)
            if found is not None:
                return found
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in names.constructors:
            return names.constructors[name](
                *(_value(one, names) for one in args),
                **{_keyword(one): _value(one.value, names) for one in keywords},
            )
    known = ", ".join((*names.constructors, *names.enums))
    raise ConfigError(f"{ast.unparse(node)!r:.200} is neither a literal nor one of {known}")


def _keyword(given: ast.keyword) -> str:
    if given.arg is None:
        raise ConfigError(f"**{ast.unparse(given.value)!r:.200} is not understood; name each argument")
    return given.arg
