"""What a person orders of a running agent: it is done in the loop, journaled, survives a crash and ends in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from poisonwatch.errors import OrderError, UnknownVersionError
from poisonwatch.server.orders import Order
from poisonwatch.sinks.journal import read
from poisonwatch.types import Action, Reason
from tests.folders import Folder, append, work
from tests.streams import START, lines, predictions

if TYPE_CHECKING:
    from pathlib import Path

    from poisonwatch.agent import App
    from poisonwatch.judge.override import Override
    from poisonwatch.types import Decision

NOW = START + 400
HOUR = 3600.0


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A log of one version that is as the reference says."""
    folder = Folder(tmp_path / "a")
    append(folder.log, lines(predictions(1000)))
    return folder


def started(folder: Folder, now: float = NOW) -> App:
    """An agent that has read all."""
    app = folder.app()
    app.start(now)
    work(app, now)
    return app


def ordered(app: App, now: float, decision: Action | None, version: str = "v1", **also: Any) -> Override | None:
    """What a person gets as an answer."""
    given = {"author": "ada", "reason": "seen by eye", "seconds": HOUR, **also}
    answer = app.orders.give(Order(model="mail", model_version=version, decision=decision, **given))
    app.obey(now)
    return answer.result(timeout=0)


def decision(app: App) -> Decision:
    """The decision that is published."""
    assert app.published.snapshot is not None
    (model,) = app.published.snapshot.models
    (found,) = model.decisions
    return found


def told(folder: Folder) -> list[tuple[str, str]]:
    """What the journal says of a person's decisions, and of the agent's."""
    return [
        (entry["kind"], entry.get("because") or entry["decision"])
        for entry in read(folder.journal)
        if entry["kind"] in {"override", "override_ended", "decision"}
    ]


def test_a_person_decides_and_takes_it_back(folder: Folder) -> None:
    """The order holds at once, is journaled with author, reason and expiry, and what holds without it comes back."""
    app = started(folder)
    before = told(folder)
    stands = ordered(app, NOW, Action.HOLD)
    assert stands is not None
    assert (stands.time, stands.expires, stands.author) == (NOW, NOW + HOUR, "ada")
    assert (decision(app).decision, decision(app).reason) == (Action.HOLD, Reason.OVERRIDDEN)
    assert "ada" in decision(app).summary
    assert "seen by eye" in decision(app).summary
    assert ordered(app, NOW + 60, None, author="bob", reason="looked again") is None
    assert decision(app).reason is not Reason.OVERRIDDEN
    after = told(folder)[len(before) :]
    assert after == [("override", "hold"), ("decision", "hold"), ("override_ended", "withdrawn"), ("decision", "keep")]
    ended = [entry for entry in read(folder.journal) if entry["kind"] == "override_ended"]
    assert [(entry["author"], entry["reason"]) for entry in ended] == [("bob", "looked again")]
    app.close(NOW + 60)


def test_it_ends_in_time(folder: Folder) -> None:
    """At its expiry, not before, and also when no record comes."""
    app = started(folder)
    ordered(app, NOW, Action.HOLD, seconds=100.0)
    app.obey(NOW + 99)
    app.publish(NOW + 99)
    assert decision(app).reason is Reason.OVERRIDDEN
    app.obey(NOW + 100)
    app.publish(NOW + 100)
    assert decision(app).decision is Action.KEEP
    assert told(folder)[-2:] == [("override_ended", "expired"), ("decision", "keep")]
    app.close(NOW + 100)


@pytest.mark.parametrize("downtime", [10.0, 2 * HOUR])
def test_a_crash_does_not_take_it_back(folder: Folder, downtime: float) -> None:
    """Who was answered finds it so after a crash, said once in the journal; if its time has passed meanwhile, it ends."""
    app = started(folder)
    app.save(NOW)
    ordered(app, NOW, Action.HOLD)
    before = told(folder)
    app.intake.close()  # as a crash leaves it: nothing is saved, nothing is said
    app._journal.close()  # noqa: SLF001
    assert app._lock is not None  # noqa: SLF001
    app._lock.close()  # noqa: SLF001
    again = folder.app()
    again.start(NOW + downtime)
    # What is shown first is true already.
    if downtime < HOUR:
        assert decision(again).reason is Reason.OVERRIDDEN
        assert told(folder) == before
    else:
        assert decision(again).reason is not Reason.OVERRIDDEN
        assert told(folder)[len(before) :] == [("override_ended", "expired"), ("decision", "keep")]
    again.close(NOW + downtime)


def test_orders_that_cannot_be_done(folder: Folder) -> None:
    """Each is answered with why; nothing changes and nothing is journaled."""
    app = started(folder)
    before = told(folder)
    with pytest.raises(UnknownVersionError, match="v9"):
        ordered(app, NOW, Action.KEEP, version="v9")
    with pytest.raises(UnknownVersionError):
        ordered(app, NOW, None)
    with pytest.raises(OrderError):
        ordered(app, NOW, Action.ROLLBACK)
    with pytest.raises(OrderError, match="v8"):
        ordered(app, NOW, Action.ROLLBACK, target="v8")
    answer = app.orders.give(Order("nobody", "v1", Action.HOLD, "ada", "no such model", HOUR))
    app.obey(NOW)
    with pytest.raises(UnknownVersionError, match=r"nobody.*mail"):
        answer.result(timeout=0)
    assert told(folder) == before
    app.publish(NOW)
    assert decision(app).reason is not Reason.OVERRIDDEN
    app.close(NOW)


def test_who_has_given_up_is_not_obeyed(folder: Folder) -> None:
    """A client that heard no answer in time was told so: its order must not be carried out later."""
    app = started(folder)
    answer = app.orders.give(Order("mail", "v1", Action.HOLD, "ada", "slow", HOUR))
    assert answer.cancel()
    app.obey(NOW)
    app.publish(NOW)
    assert decision(app).reason is not Reason.OVERRIDDEN
    app.close(NOW)
