"""Allocations: sums that a requestor sets aside, and what a demand must say about them.

Source: contract 3.2.1, 3.2.2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

from shem.clock import Clock
from shem.devnet.background import Background, Timer
from shem.devnet.money import is_amount, rounded
from shem.devnet.refusals import bad_request, not_found
from shem.errors import BadRequest, Gone
from shem.ids import AllocationId, NodeId
from shem.yagna import models as wire

ROOT: Final = "/payment-api/v1"
_PLATFORM = re.compile(r"erc20-[a-z0-9]+-t?glm")


class AllocationProblem(BadRequest):
    """A refused allocation; `kind` is the problem's type as RFC 7807 has it."""

    def __init__(self, call: str, kind: str, message: str) -> None:
        super().__init__(call, 400, message)
        self.kind = kind


class Allocations:
    """All allocations of one node."""

    def __init__(self, clock: Clock, background: Background) -> None:
        self._clock, self._background = clock, background
        self._allocations: dict[AllocationId, wire.Allocation] = {}
        self._owners: dict[AllocationId, NodeId] = {}
        self._released: set[AllocationId] = set()
        self._timers: dict[AllocationId, Timer] = {}

    def create(self, who: NodeId, wanted: wire.NewAllocation) -> wire.Allocation:
        """Set an amount aside. Raises `AllocationProblem` for a bad platform, amount or time-out."""
        call = f"POST {ROOT}/allocations"
        platform = wanted.payment_platform.lower()
        if not _PLATFORM.fullmatch(platform):
            raise AllocationProblem(
                call, "/bad-payment-platform", f"unknown payment platform {wanted.payment_platform!r}"
            )
        total = self._check(call, wanted.total_amount, wanted.timeout)
        allocation = wire.Allocation(
            allocation_id=AllocationId(dashed(self._clock.unique_id())),
            address=wanted.address or who,
            payment_platform=platform,
            total_amount=total,
            spent_amount=Decimal(0),
            remaining_amount=total,
            timestamp=self._clock.now(),
            timeout=wanted.timeout,
            make_deposit=wanted.make_deposit,
        )
        self._owners[allocation.allocation_id] = who
        self._store(allocation)
        return allocation

    def allocation(self, who: NodeId, allocation_id: AllocationId) -> wire.Allocation:
        """One allocation. Raises `NotFound`, and `Gone` once released."""
        return self._find(f"GET {ROOT}/allocations/{allocation_id}", who, allocation_id)

    def allocations(self, who: NodeId) -> list[wire.Allocation]:
        """The allocations that are not released."""
        return [one for one in self.open() if self._owners[one.allocation_id] == who]

    def change(
        self, who: NodeId, allocation_id: AllocationId, change: wire.AllocationChange
    ) -> wire.Allocation:
        """Change amount or time-out. Raises `NotFound`, `Gone`, `AllocationProblem`."""
        call = f"PUT {ROOT}/allocations/{allocation_id}"
        before = self._find(call, who, allocation_id)
        wanted = before.total_amount if change.total_amount is None else change.total_amount
        total = self._check(call, wanted, change.timeout)
        if total < before.spent_amount:
            raise AllocationProblem(
                call, "/validation-error", f"{before.spent_amount} of the allocation are spent already"
            )
        after = msgspec.structs.replace(
            before,
            total_amount=total,
            remaining_amount=total - before.spent_amount,
            timeout=before.timeout if change.timeout is None else change.timeout,
        )
        self._store(after)
        return after

    def release(self, who: NodeId, allocation_id: AllocationId) -> None:
        """Give back what is left. Raises `NotFound`, and `Gone` where it was released already."""
        self._find(f"DELETE {ROOT}/allocations/{allocation_id}", who, allocation_id)
        self._release(allocation_id)

    def charge(self, call: str, who: NodeId, allocation_id: AllocationId, amount: Decimal) -> None:
        """Spend from an allocation. Raises `BadRequest` where there is none or not enough, `Gone`."""
        if self._owners.get(allocation_id) != who:
            raise bad_request(call, f"Allocation {allocation_id} not found")
        before = self._find(call, who, allocation_id)
        if amount > before.remaining_amount:
            raise bad_request(
                call, f"Not enough funds. Allocated: {before.remaining_amount:f} Needed: {amount:f}"
            )
        self._allocations[allocation_id] = msgspec.structs.replace(
            before,
            spent_amount=before.spent_amount + amount,
            remaining_amount=before.remaining_amount - amount,
        )

    def decorations(self, who: NodeId, allocation_ids: Sequence[AllocationId]) -> wire.DemandDecorations:
        """What a demand must say so that providers can be paid. Raises `NotFound` for any unknown id."""
        call = f"GET {ROOT}/demandDecorations"
        addresses = {}
        for allocation_id in allocation_ids:
            allocation = self._find(call, who, allocation_id)
            key = f"golem.com.payment.platform.{allocation.payment_platform}.address"
            addresses[key] = allocation.address
        presence = [f"({key}=*)" for key in addresses]
        platforms = presence if len(presence) < 2 else ["(|\n  " + "\n  ".join(presence) + ")"]
        return wire.DemandDecorations(
            properties=[
                *(wire.Decoration(key=key, value=address) for key, address in addresses.items()),
                wire.Decoration(key="golem.com.payment.protocol.version", value="3"),
            ],
            constraints=[*platforms, "(golem.com.payment.protocol.version>1)"],
        )

    def open(self) -> list[wire.Allocation]:
        """Everybody's allocations that are not released."""
        return [one for key, one in self._allocations.items() if key not in self._released]

    def _find(self, call: str, who: NodeId, allocation_id: AllocationId) -> wire.Allocation:
        allocation = self._allocations.get(allocation_id)
        if allocation is None or self._owners[allocation_id] != who:
            raise not_found(call, f"Allocation {allocation_id} not found")
        if allocation_id in self._released:
            raise Gone(call, 410, f"Allocation {allocation_id} has been already released")
        return allocation

    def _check(self, call: str, total: Decimal, timeout: datetime | None) -> Decimal:
        if not is_amount(total):
            raise AllocationProblem(call, "/validation-error", f"{total} is no amount to set aside")
        if timeout is not None and timeout <= self._clock.now():
            raise AllocationProblem(
                call, "/validation-error/timeout-passed", f"the time-out {timeout.isoformat()} has passed"
            )
        return rounded(total)

    def _store(self, allocation: wire.Allocation) -> None:
        key = allocation.allocation_id
        self._allocations[key] = allocation
        if key in self._timers:
            self._timers.pop(key).cancel()
        if allocation.timeout is not None:
            left = (allocation.timeout - self._clock.now()).total_seconds()
            self._timers[key] = self._background.later(left, self._release, key)

    def _release(self, allocation_id: AllocationId) -> None:
        self._released.add(allocation_id)
        timer = self._timers.pop(allocation_id, None)
        if timer is not None:
            timer.cancel()


def dashed(identifier: str) -> str:
    """An id in the form that the payment API uses: a UUID with its dashes."""
    return "-".join((identifier[:8], identifier[8:12], identifier[12:16], identifier[16:20], identifier[20:]))
