"""Seeded bugs: each is one small change to shem that the suite has to notice.

`python tests/mutants/run.py` (or `make mutants`) makes them one at a time in a copy of the sources and runs
the virtual-time suites against it. `test_mutants_apply.py` sees to it that each of them still applies.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One bug: in `file` (below src/shem), `old` becomes `new`."""

    name: str
    file: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        "a lost activity leads Running to Stopping",
        "lifecycle/service.py",
        "Move(_S.RUNNING, _E.ACTIVITY_LOST, _S.TERMINATED)",
        "Move(_S.RUNNING, _E.ACTIVITY_LOST, _S.STOPPING)",
    ),
    Mutant(
        "a stop while Starting skips shutdown()",
        "lifecycle/service.py",
        "Move(_S.STARTING, _E.SHUTDOWN, _S.STOPPING)",
        "Move(_S.STARTING, _E.SHUTDOWN, _S.TERMINATED)",
    ),
    Mutant(
        "the end of an older handler is believed",
        "service/driver.py",
        "    def _report(self, name: str, error: BaseException | None, life: int) -> None:\n"
        "        if life != self._life:\n            return\n",
        "    def _report(self, name: str, error: BaseException | None, life: int) -> None:\n",
    ),
    Mutant(
        "a handler does not wait for the one before",
        "service/driver.py",
        "        await self._clean_up(earlier)\n        await self._may_go_on()",
        "        await self._may_go_on()",
    ),
    Mutant(
        "a stop does not interrupt a handler",
        "service/driver.py",
        "            self._task.cancel()\n",
        "            pass\n",
    ),
    Mutant(
        "an unresponsive provider does not suspend the handler",
        "service/driver.py",
        "        self._suspended = asyncio.Event()\n",
        "        self._suspended = None\n",
    ),
    Mutant(
        "what a suspended handler reported is forgotten",
        "service/driver.py",
        "            self._held_back = lambda: self._report(name, error, life)\n            return\n",
        "            return\n",
    ),
    Mutant(
        "the slot waits for the next change, not for one it has not seen",
        "service/instance.py",
        "        await self._until(lambda: len(self._records) > seq)",
        "        seq = len(self._records)\n        await self._until(lambda: len(self._records) > seq)",
    ),
    Mutant(
        "the end of an agreement by its provider is not heard",
        "engine/agreement.py",
        'and event.terminator == "Provider"',
        'and event.terminator == "provider"',
    ),
    Mutant(
        "an activity counts as alive because the node answers",
        "engine/activity.py",
        "        if ActivityState.TERMINATED.value not in doc.state:\n            return None\n",
        "        if True:\n            return None\n",
    ),
    Mutant(
        "a stop while Pending lets the acquisition go on",
        "service/slot.py",
        "        finally:\n            work.cancel()\n            moving.cancel()\n",
        "        finally:\n            moving.cancel()\n",
    ),
    Mutant(
        "a lease that came too late is kept",
        "service/slot.py",
        "            self._master.release(self, acquiring.result(), unwanted)\n",
        "            acquiring.result()\n",
    ),
    Mutant(
        "an agreement that nobody wants any more is left alone",
        "engine/agreement.py",
        "            await self._withdraw(agreement)\n",
        "            pass\n",
    ),
    Mutant(
        "errors of the user's own code are tried on other providers",
        "service/policy.py",
        "        return blame in (Blame.PROVIDER, Blame.INFRASTRUCTURE) or (",
        "        return True or (",
    ),
    Mutant(
        "a slot is filled again after a stop",
        "service/slot.py",
        "        self._stopping.set()\n        self.instance.notice_loss()\n",
        "        self.instance.notice_loss()\n",
    ),
    Mutant(
        "there is no limit to tries",
        "service/policy.py",
        "        return self.failures < self._policy.attempts",
        "        return True",
    ),
    Mutant(
        "any invoice is accepted",
        "engine/payment.py",
        "        return billed <= expected * (1 + self.share) + self.amount",
        "        return True",
    ),
    Mutant(
        "commands after a failed one never resolve",
        "script/script.py",
        "                handle.fail(skipped)\n",
        "                pass\n",
    ),
    Mutant(
        "an inner handler is not told of its script's failure",
        "service/handlers.py",
        "        raised = await inner.absorb(pending)\n",
        "        raised = pending\n",
    ),
    Mutant(
        "the lease of a failed start is not given back",
        "service/slot.py",
        '        self._master.release(\n            self, lease, Reason(message=f"Start failed',
        '        (lambda *_: None)(\n            self, lease, Reason(message=f"Start failed',
    ),
    Mutant(
        "a shutdown() that overruns its budget is waited for",
        "service/slot.py",
        "                    if not await self._moved(instance, seq, budget):\n",
        "                    if not await self._moved(instance, seq, None):\n",
    ),
    Mutant(
        "an expiry does not drain",
        "service/supervisor.py",
        "call_later(left - drain, self._drain)",
        "call_later(left * 1000, self._drain)",
    ),
    Mutant(
        "silence is never found out",
        "engine/liveness.py",
        "activity.last_sign) >= self._pace.silent_after:",
        "activity.last_sign) >= self._pace.silent_after * 1000:",
    ),
    Mutant(
        "a script can be sent twice",
        "script/script.py",
        '        if self._sent:\n            raise ScriptMisuse("a script can be sent only once',
        '        if False:\n            raise ScriptMisuse("a script can be sent only once',
    ),
)
