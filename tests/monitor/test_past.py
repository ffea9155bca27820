"""The past of a version: a second opinion is formed once while evidence fires, and slowness is asked for once a day."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from poisonwatch.monitor.past import Past
from poisonwatch.types import Evidence, Subject

TEXT = "prediction = spam"
PLACES = {TEXT: (0, 1)}
MINUTE = 60.0


def evidence(log_e: float = 1.0, group: str = "outputs", text: str = TEXT) -> Evidence:
    """Evidence of this strength about one indicator."""
    subject = Subject(indicator=text, signal="class", rate=0.4, expected=0.2)
    return Evidence(
        model="mail",
        model_version="v1",
        group=group,
        signal="class",
        log_e=log_e,
        effect=1.0,
        floor=0.3,
        n=10,
        onset=0.0,
        subjects=(subject,),
    )


def lived(past: Past, first: int, last: int, rate: float) -> None:
    """Minutes of 100 predictions, so many of them spam."""
    for minute in range(first, last):
        past.note(MINUTE * minute, np.array([100, round(100 * rate)], np.int64))


def reloaded(past: Past) -> Past:
    """The same past after a restart."""
    return Past.restored(2, past.state())


def test_a_second_opinion_is_formed_once_and_kept_while_the_evidence_fires() -> None:
    """A second jump changes it only after the evidence has been gone; a restart changes nothing."""
    past = Past(2)
    lived(past, 0, 60, 0.2)
    lived(past, 60, 120, 0.6)
    assert past.onset(evidence(-0.1), PLACES) is None
    assert past.onset(evidence(), PLACES) == 60 * MINUTE
    lived(past, 120, 240, 0.9)
    past = reloaded(past)
    assert past.onset(evidence(3.0), PLACES) == 60 * MINUTE
    assert past.onset(evidence(-0.1), PLACES) is None
    assert past.onset(evidence(), PLACES) == 120 * MINUTE


def test_there_is_no_second_opinion_on_what_the_profile_does_not_count_or_on_nobody() -> None:
    """Indicators of labels are counted elsewhere; evidence without a subject is about nothing."""
    past = Past(2)
    lived(past, 0, 60, 0.2)
    lived(past, 60, 120, 0.6)
    assert past.onset(evidence(text="wrong"), PLACES) is None
    assert past.onset(msgspec.structs.replace(evidence(group="inputs"), subjects=()), PLACES) is None


@pytest.mark.parametrize("restart", [False, True])
def test_slowness_is_asked_for_once_a_day_until_it_is_so(restart: bool) -> None:
    """Each group by itself; once slow it stays so while it fires, and is asked anew when it fires again."""
    past = Past(2)
    asked: list[str] = []

    def slow(group: str, day: int, *, answer: bool, log_e: float = 1.0) -> bool:
        nonlocal past
        past = reloaded(past) if restart else past

        def judge(found: Evidence) -> bool:
            asked.append(f"{found.group} {day}")
            return answer

        return past.is_slow(evidence(log_e, group), day, judge)

    assert not slow("outputs", 1, answer=False)
    assert not slow("outputs", 1, answer=True)
    assert slow("flips", 1, answer=True)
    assert slow("outputs", 2, answer=True)
    assert slow("outputs", 3, answer=False)
    assert not slow("outputs", 3, answer=True, log_e=-0.1)
    assert not slow("outputs", 3, answer=False)
    assert asked == ["outputs 1", "flips 1", "outputs 2", "outputs 3"]
