"""What can be set about a devnet node: the pace of its built-in providers and what each of them offers."""

from __future__ import annotations

from dataclasses import dataclass, fields

from shem.errors import ConfigError
from shem.props import CPU_SEC, DURATION_SEC

#: The version of yagna whose API is served; clients refuse versions that are too old.
YAGNA_VERSION = "0.17.6"
#: Payment platforms that built-in providers have an address on: the defaults of the known clients.
PLATFORMS = ("erc20-holesky-tglm", "erc20-hoodi-tglm", "erc20-polygon-glm")


@dataclass(frozen=True, slots=True)
class Timings:
    """How long things take on the node and at its providers, in seconds.

    The defaults are those of contract 5.5, 4.6 and 3.4.2.

    Attributes:
        match: from publishing a demand to the providers' initial proposals.
        counter_reply: from a counter-proposal to the provider's answer.
        approval: from the confirmation of an agreement to its approval.
        invoice: from the end of an agreement, or of its last activity where that comes later, to the invoice.
        settle: from the acceptance of a document to its settlement.
        no_activity: how long an agreement may stand without an activity before the provider ends it.
        debit_note_interval: between debit notes of an activity where none was negotiated.
        demand_lifetime: after which a demand is dropped.
        unresponsive: how long an activity may be silent before it is called unresponsive.
        abandoned: how long an activity may be silent before the provider gives it up.
        teardown: the most that a runtime may take to be destroyed.
    """

    match: float = 0.0
    counter_reply: float = 0.05
    approval: float = 0.1
    invoice: float = 0.2
    settle: float = 1.0
    no_activity: float = 90.0
    debit_note_interval: float = 120.0
    demand_lifetime: float = 3600.0
    unresponsive: float = 5.0
    abandoned: float = 10.0
    teardown: float = 10.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < float("inf"):
                raise ConfigError(f"timing {field.name} must be a number of seconds from 0 up, not {value!r}")
        if self.abandoned < self.unresponsive:
            raise ConfigError(
                f"timing abandoned ({self.abandoned} s) must not be less than unresponsive "
                f"({self.unresponsive} s)"
            )


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """What one built-in provider offers, and at which price.

    Attributes:
        name: its name on the market; by default ``devnet-1``, ``devnet-2`` … by its place.
        usage_vector: the counters it charges for.
        coeffs: GLM per unit of each counter, and last the fee for starting an activity.
        mem_gib, storage_gib, threads, cores: what one activity gets.
        max_agreements: how many agreements it keeps at the same time.
        subnet: the part of the market it is on.
        runtime: name of its runtime.
        platforms: payment platforms it can be paid on.
        accept_timeout, debit_note_interval, payment_timeout: its side of what is negotiated, in seconds:
            until when a debit note must be accepted, how often one is sent, when it must be paid.
    """

    name: str | None = None
    usage_vector: tuple[str, ...] = (CPU_SEC, DURATION_SEC)
    coeffs: tuple[float, ...] = (0.0001, 0.00005, 0.0)
    mem_gib: float = 8.0
    storage_gib: float = 20.0
    threads: int = 4
    cores: int = 4
    max_agreements: int = 1
    subnet: str = "public"
    runtime: str = "vm"
    platforms: tuple[str, ...] = PLATFORMS
    accept_timeout: float = 240
    debit_note_interval: float = 120
    payment_timeout: float = 120

    def __post_init__(self) -> None:
        if len(self.coeffs) != len(self.usage_vector) + 1:
            raise ConfigError(
                f"provider {self.name or ''}: {len(self.usage_vector)} usage counters need "
                f"{len(self.usage_vector) + 1} coefficients (the last is the start fee), "
                f"not {len(self.coeffs)}"
            )
        if self.max_agreements < 1:
            raise ConfigError(
                f"provider {self.name or ''}: max_agreements must be 1 or more, not {self.max_agreements}"
            )
