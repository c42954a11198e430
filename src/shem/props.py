"""Names of market properties, and typed fields from which demands are built.

A payload is a dataclass whose fields say what they are on the market::

    @dataclass
    class Database(Payload):
        runtime: str = constraint(RUNTIME_NAME, default="postgres")
        min_mem_gib: float = constraint(MEM_GIB, operator=">=", default=1.0)
        region: str = prop("acme.region", default="eu")

Source of the names: contract 4.4. The constraint language is described in 4.2: no escapes exist in it, so a
value that cannot be written is refused here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final

from shem.errors import ConfigError

RUNTIME_NAME: Final = "golem.runtime.name"
RUNTIME_CAPABILITIES: Final = "golem.runtime.capabilities"
MEM_GIB: Final = "golem.inf.mem.gib"
STORAGE_GIB: Final = "golem.inf.storage.gib"
CPU_THREADS: Final = "golem.inf.cpu.threads"
CPU_CORES: Final = "golem.inf.cpu.cores"
TASK_PACKAGE: Final = "golem.srv.comp.task_package"
PACKAGE_FORMAT: Final = "golem.srv.comp.vm.package_format"
#: When the agreement's work must end, in ms since 1970.
EXPIRATION: Final = "golem.srv.comp.expiration"
MULTI_ACTIVITY: Final = "golem.srv.caps.multi-activity"
SUBNET: Final = "golem.node.debug.subnet"
NODE_NAME: Final = "golem.node.id.name"
CHOSEN_PLATFORM: Final = "golem.com.payment.chosen-platform"
PRICING_MODEL: Final = "golem.com.pricing.model"
LINEAR_COEFFS: Final = "golem.com.pricing.model.linear.coeffs"
USAGE_VECTOR: Final = "golem.com.usage.vector"
#: The question mark marks a property as negotiable, by convention; it is part of the key.
DEBIT_NOTE_ACCEPT_TIMEOUT: Final = "golem.com.payment.debit-notes.accept-timeout?"
DEBIT_NOTE_INTERVAL: Final = "golem.com.scheme.payu.debit-note.interval-sec?"
PAYMENT_TIMEOUT: Final = "golem.com.scheme.payu.payment-timeout-sec?"

#: Usage counters (contract 4.5).
DURATION_SEC: Final = "golem.usage.duration_sec"
CPU_SEC: Final = "golem.usage.cpu_sec"

_META: Final = "shem.market"
_OPERATORS: Final = ("=", ">=", "<=", ">", "<")


@dataclasses.dataclass(frozen=True, slots=True)
class _Market:
    key: str
    operator: str | None  # None: a property of the demand, else a constraint on offers


def prop(key: str, *, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that becomes a property of the demand. None leaves it out."""
    return dataclasses.field(default=default, metadata={_META: _Market(key, None)})


def constraint(
    key: str,
    *,
    operator: str = "=",
    default: Any = dataclasses.MISSING,
    default_factory: Callable[[], Any] | None = None,
) -> Any:
    """A dataclass field that becomes a constraint on offers: ``(key operator value)``.

    A list means one constraint per item, all of which must hold. None leaves it out. `operator` is one of
    ``= >= <= > <``; there is no "unequal" in the market's language.
    """
    if operator not in _OPERATORS:
        raise ConfigError(f"constraint on {key}: operator {operator!r} is not one of {', '.join(_OPERATORS)}")
    meta = {_META: _Market(key, operator)}
    if default_factory is not None:
        return dataclasses.field(default_factory=default_factory, metadata=meta)
    return dataclasses.field(default=default, metadata=meta)


def demand_parts(model: object) -> tuple[dict[str, Any], list[str]]:
    """Properties and constraints that a dataclass's market fields stand for."""
    properties: dict[str, Any] = {}
    constraints: list[str] = []
    for field in dataclasses.fields(model):  # type: ignore[arg-type]  # refused there when no dataclass
        market: _Market | None = field.metadata.get(_META)
        value = getattr(model, field.name)
        if market is None or value is None:
            continue
        if market.operator is None:
            properties[market.key] = value
        else:
            values = value if isinstance(value, list | tuple) else [value]
            constraints += [compare(market.key, market.operator, item) for item in values]
    return properties, constraints


def compare(key: str, operator: str, value: Any) -> str:
    """One comparison in the market's language. Raises `ConfigError` for a value it cannot express."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if ")" in text or "(" in text:
        raise ConfigError(f"constraint on {key}: {text!r} holds a bracket, which the market cannot express")
    return f"({key}{operator}{text})"


def all_of(constraints: Sequence[str]) -> str:
    """One constraint that holds where all the given ones do."""
    if len(constraints) == 1:
        return constraints[0]
    return "(&" + "\n\t".join(constraints) + ")"
