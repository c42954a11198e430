"""A running summary of what happens, for people: the event consumer that users of yapapi know."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from shem.events import (
    ActivityCreated,
    AgreementFailed,
    AgreementSigned,
    AllocationReleased,
    BusEvent,
    DemandPublished,
    InstanceMoved,
    InvoiceAccepted,
    NodeChosen,
    NodeLost,
    PaymentRefused,
    StepSkipped,
)
from shem.ids import ActivityId, AgreementId
from shem.log import get_logger

Emitter = Callable[[BusEvent], object]

_log = get_logger("summary")


def log_event(event: BusEvent) -> None:
    """Log an event by its kind and fields."""
    _log.info(
        type(event).__name__,
        **{f"_{name}" if name == "event" else name: value for name, value in event.fields().items()},
    )


def log_event_repr(event: BusEvent) -> None:
    """Log an event as it is, at debug level."""
    _log.debug(repr(event))


def log_summary(wrapped_emitter: Emitter | None = None) -> Emitter:
    """An event consumer that logs what a person wants to know, and hands every event on.

    At the end of the run it tells what each provider was paid.
    """
    return SummaryLogger(wrapped_emitter)


class SummaryLogger:
    """The consumer that `log_summary` makes. Holds one line per agreement, and nothing per script."""

    def __init__(self, wrapped_emitter: Emitter | None = None) -> None:
        self._wrapped = wrapped_emitter
        self._providers: dict[AgreementId, str] = {}
        self._activities: dict[ActivityId, str] = {}
        self._paid: dict[str, Decimal] = {}

    def __call__(self, event: BusEvent) -> None:
        """Take one event."""
        if self._wrapped is not None:
            self._wrapped(event)
        text = self._words(event)
        if text:
            _log.info(text)

    def _words(self, event: BusEvent) -> str:
        match event:
            case NodeChosen():
                return f"using {event.kind} at {event.url}"
            case DemandPublished():
                return "demand published, waiting for offers"
            case AgreementSigned():
                self._providers[event.agreement] = event.provider_name
                return f"[{event.provider_name}] agreement signed"
            case AgreementFailed():
                return f"[{event.provider_name}] no agreement: {event.reason}"
            case ActivityCreated():
                self._activities[event.activity] = self._providers.get(event.agreement, "?")
                return f"[{self._activities[event.activity]}] activity created"
            case InstanceMoved():
                record = event.record
                return (
                    f"instance {event.instance}: {record.source.value} → {record.dest.value} ({record.cause})"
                )
            case InvoiceAccepted():
                provider = self._providers.get(event.agreement, "?")
                self._paid[provider] = self._paid.get(provider, Decimal(0)) + event.amount
                return f"[{provider}] invoice over {event.amount} GLM accepted"
            case PaymentRefused():
                return f"{event.document} over {event.amount} GLM refused: {event.reason}"
            case NodeLost():
                return f"the node does not answer ({event.poll}): {event.error}"
            case StepSkipped():
                return f"skipped: {event.step}: {event.reason}"
            case AllocationReleased():
                each = ", ".join(f"{name} {amount} GLM" for name, amount in self._paid.items())
                return f"total cost {sum(self._paid.values(), Decimal(0))} GLM" + (
                    f" ({each})" if each else ""
                )
        return ""
