"""What all tests share: how hypothesis works here, and a log that keeps quiet.

A test that wants to see log events uses `structlog.testing.capture_logs`.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, NoReturn

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Time is mostly virtual, and the machine is mostly busy with other things: real durations say nothing.
settings.register_profile("shem", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shem")


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    structlog.configure(
        processors=[_drop],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        cache_logger_on_first_use=False,
    )
    yield
    structlog.reset_defaults()


def _drop(_logger: object, _method: str, _fields: MutableMapping[str, Any]) -> NoReturn:
    raise structlog.DropEvent
