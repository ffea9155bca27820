"""What fuzzing found, each as the smallest input that showed it."""

from __future__ import annotations

import pytest

from poisonwatch.formats.events import Event
from tests.fuzz.formats import accounted, formats
from tests.fuzz.targets import target
from tests.streams import START

BATCH = {"content-type": "application/cloudevents-batch+json"}


@pytest.mark.parametrize("name", sorted(formats()))
@pytest.mark.parametrize("headers", [{}, BATCH], ids=["plain", "batch"])
def test_an_empty_list_is_told_of(name: str, headers: dict[str, str]) -> None:
    """A body that holds no event vanished without a count."""
    told = accounted(formats()[name].make, [Event(b"[]", headers, START)])
    assert told.rejected.total() == 1


def test_an_empty_batch_of_native_records_is_told_of() -> None:
    """The same at the door of native records."""
    target("bodies").run(b"content-type: application/cloudevents-batch+json\n\n[]")
