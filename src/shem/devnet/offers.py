"""What a built-in provider publishes, and what its prices mean.

Source: contract 4.4 (names and what the known clients insist on) and 4.5 (the linear price).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from shem import props
from shem.devnet.money import rounded
from shem.devnet.settings import ProviderSettings


def offer_properties(settings: ProviderSettings, name: str, wallet: str) -> dict[str, Any]:
    """Properties of an offer. `wallet`: the address it is paid at, the same on every platform."""
    return {
        props.NODE_NAME: name,
        props.SUBNET: settings.subnet,
        "golem.node.net.is-public": False,
        props.RUNTIME_NAME: settings.runtime,
        "golem.runtime.version": "0.5.3",
        props.RUNTIME_CAPABILITIES: ["vpn", "inet", "manifest-support", "start-entrypoint"],
        "golem.inf.cpu.architecture": "x86_64",
        "golem.inf.cpu.brand": "devnet",
        "golem.inf.cpu.capabilities": ["sse3"],
        props.CPU_CORES: settings.cores,
        "golem.inf.cpu.model": "devnet",
        props.CPU_THREADS: settings.threads,
        "golem.inf.cpu.vendor": "devnet",
        props.MEM_GIB: float(settings.mem_gib),
        props.STORAGE_GIB: float(settings.storage_gib),
        props.MULTI_ACTIVITY: True,
        "golem.srv.caps.payload-manifest": True,
        "golem.activity.caps.transfer.protocol": ["http", "https", "gftp"],
        "golem.activity.caps.transfer.report-progress": False,
        "golem.activity.caps.deploy.report-progress": False,
        props.PRICING_MODEL: "linear",
        # Integers make yapapi drop the offer (contract 5.3, gotcha 15).
        props.LINEAR_COEFFS: [float(coeff) for coeff in settings.coeffs],
        props.USAGE_VECTOR: list(settings.usage_vector),
        "golem.com.scheme": "payu",
        props.DEBIT_NOTE_INTERVAL: settings.debit_note_interval,
        props.PAYMENT_TIMEOUT: settings.payment_timeout,
        props.DEBIT_NOTE_ACCEPT_TIMEOUT: settings.accept_timeout,
        "golem.com.payment.protocol.version": 3,
        **{f"golem.com.payment.platform.{platform}.address": wallet for platform in settings.platforms},
    }


def offer_constraints(settings: ProviderSettings, now: datetime) -> str:
    """What the provider asks of a demand: its subnet, and an end of the work in the future."""
    return f"(&\n ({props.EXPIRATION}>{int(now.timestamp() * 1000)})\n ({props.SUBNET}={settings.subnet})\n)"


def cost(coeffs: Sequence[float], usage: Sequence[float]) -> Decimal:
    """What an activity has cost so far, in GLM: each counter times its coefficient, and the start fee."""
    total = Decimal(repr(float(coeffs[-1])))
    for coeff, used in zip(coeffs, usage, strict=False):
        total += Decimal(repr(float(coeff))) * Decimal(repr(float(used)))
    return rounded(total)
