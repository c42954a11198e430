"""The time budgets of a simulated life, and what they add up to. All in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from shem.config import PaymentSettings
from shem.engine.activity import DESTROY_SECONDS
from shem.engine.agreement import SigningPace
from shem.engine.engine import EngineSettings
from shem.engine.liveness import LivenessPace
from shem.engine.market import MarketPace
from shem.engine.payment import RELEASE_SECONDS
from shem.golem import OPENING_SECONDS
from shem.service.driver import LAST_WORDS
from shem.service.instance import Budgets

#: What the engine adds to the budget of a step that it sees through: for the step's own repetitions, and for
#: its last words when it is cancelled.
_STEP = 5.0 + 2.0
#: What the bus gives its listeners to work off what is queued, twice.
_LISTENERS = 2 * 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Budgets and paces: short where a user can set them, since nothing is learnt by waiting longer."""

    start: float = 40.0
    stop: float = 15.0
    grace: float = 15.0
    offers: float = 20.0
    invoices: float = 20.0
    budgets: Budgets = field(default_factory=Budgets)
    liveness: LivenessPace = field(default_factory=lambda: LivenessPace(2.0, 2.0, 8.0))
    signing: SigningPace = field(default_factory=SigningPace)
    market: MarketPace = field(default_factory=MarketPace)

    def engine(self, payment: PaymentSettings) -> EngineSettings:
        """The engine's settings."""
        return EngineSettings(
            payment,
            market=self.market,
            signing=self.signing,
            liveness=self.liveness,
            offers_within=self.offers,
            invoices_within=self.invoices,
        )

    @property
    def cleanup(self) -> float:
        """How long the `finally` blocks of a handler may hold up what follows."""
        return self.budgets.cleanup + LAST_WORDS

    @property
    def release(self) -> float:
        """How long giving a lease back may take: the activity, then the agreement."""
        return DESTROY_SECONDS + _STEP + self.signing.end + _STEP

    @property
    def end_of_instance(self) -> float:
        """How long the end of an instance may take, from the stop on, in whatever state it is."""
        handlers = self.cleanup + self.stop + self.grace + self.cleanup
        return max(handlers + self.release, self.end_of_search)

    @property
    def end_of_search(self) -> float:
        """How long it may take to let go of an activity that is being acquired, or of a failed start."""
        taking_back = 2 * self.signing.end + _STEP
        looking_for_debts = _STEP
        return 2 * self.cleanup + taking_back + looking_for_debts + self.release

    @property
    def exit(self) -> float:
        """How long leaving the context of a `Golem` may take."""
        clusters = max(OPENING_SECONDS, self.end_of_instance + self.market.withdraw)
        return clusters + self.invoices + RELEASE_SECONDS + _STEP + _LISTENERS

    @property
    def detection(self) -> float:
        """How long an activity may be gone before the instance on it knows."""
        return 2 * self.liveness.interval + 3 * self.liveness.answer + self.signing.news

    @property
    def silence(self) -> float:
        """How long a provider may be silent before the instance on it is Unresponsive."""
        return self.liveness.found_within

    @property
    def recovery(self) -> float:
        """How long a provider may answer again before the instance on it knows."""
        return self.liveness.interval + 2 * self.liveness.answer
