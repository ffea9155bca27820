"""The journal: nothing is taken out of it, put into it or said twice without it showing."""

from __future__ import annotations

import json
import math
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.errors import JournalError, StateError
from poisonwatch.judge.story import Story
from poisonwatch.sinks.journal import (
    FIRST,
    MOST_RECENT,
    MOST_UNWRITTEN,
    Journal,
    accusation_entry,
    alert_entry,
    decision_entry,
    read,
    rfc3339,
    trigger_entry,
)
from poisonwatch.sinks.lock import Lock
from poisonwatch.types import (
    Accusation,
    Action,
    Alert,
    AlertState,
    Cause,
    Cell,
    Decision,
    Item,
    Patch,
    Pattern,
    Reason,
    Severity,
    Subject,
    TriggerState,
    Values,
)
from tests.streams import START
from tests.triggers import PHRASE, insertion, trigger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def alert(number: int, summary: str = "It moved.") -> Alert:
    """An alert with numbers that are long when written out."""
    return Alert(
        fingerprint=f"f{number}",
        model="mail",
        model_version="v1",
        state=AlertState.FIRING,
        severity=Severity.PAGE,
        cause=Cause.DEGRADATION,
        group="outputs",
        signal="class",
        subjects=(Subject(indicator="prediction = spam", signal="class", rate=1 / 3, expected=0.1 + 0.2),),
        log_e=2 / 3 * number,
        effect=1e-17,
        onset=START + 0.1,
        n=number,
        time=START + number / 3,
        summary=summary,
    )


def decision(number: int) -> Decision:
    """A decision that rests on an alert."""
    return Decision(
        model="mail",
        model_version="v1",
        decision=Action.ROLLBACK,
        reason=Reason.WORSE_THAN_STABLE,
        cause=Cause.DEGRADATION,
        target="v0",
        alerts=(f"f{number}",),
        time=START + number / 3,
        summary="Roll back.",
    )


def told_then(number: int) -> Story:
    """What stood behind it."""
    return Story(
        onset=START + number / 3,
        share=1 / 3,
        predictions=number,
        speaks_for=("It moved.",),
        speaks_against=(),
        ruled_out=("Drift.", "Broken data."),
        would_change=("A person.",),
        target_because="v0 is healthy.",
    )


def accusation(number: int) -> Accusation:
    """An accusation of a group of sources."""
    return Accusation(
        source=f"campaign-{number}",
        kind="group",
        members=("annotator-3", "annotator-é"),
        labels=40,
        disagreements=37,
        expected=0.1 + 0.2,
        rate=37 / 40,
        predicted="spam",
        label="ham",
        log_e=2 / 3,
        onset=START + 0.1,
        first=START,
        last=START + 3600,
        prediction_ids=("p1", "p2"),
    )


def write(journal: Journal, first: int, last: int) -> None:
    """An alert and a decision for each number."""
    for number in range(first, last):
        journal.append(START + number / 3, alert_entry(alert(number)))
        journal.append(START + number / 3, decision_entry(decision(number), told_then(number)))


def written(tmp_path: Path) -> tuple[Path, list[bytes]]:
    """A journal with a start, three alerts and three decisions, and its lines."""
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.append(START, {"kind": "start"})
    write(journal, 0, 3)
    journal.close()
    return path, path.read_bytes().splitlines(keepends=True)


def test_chain_holds(tmp_path: Path) -> None:
    """Entries are numbered from 1, chained from 64 zeros, and have every field that each line must have."""
    path, content = written(tmp_path)
    entries = list(read(path))
    assert len(entries) == len(content) == 7
    assert [entry["seq"] for entry in entries] == list(range(1, 8))
    assert [entry["prev"] for entry in entries] == [FIRST, *(entry["hash"] for entry in entries[:-1])]
    for entry in entries:
        assert {"seq", "prev", "hash", "time", "kind", "model", "model_version"} <= set(entry)
    assert (entries[0]["time"], entries[0]["model"]) == ("2026-01-05T08:00:00.000Z", None)
    assert {"fingerprint", "state", "severity", "cause", "signal", "subjects", "log_e", "effect", "onset", "n"} <= set(
        entries[1]
    )
    assert {"decision", "reason", "cause", "target", "alerts"} <= set(entries[2])
    behind = entries[2]["story"]
    assert (behind["onset"], behind["share"], behind["would_change"]) == (entries[2]["time"], 0.333333, ["A person."])


def recent(journal: Journal) -> list[dict[str, Any]]:
    """The entries that a journal has at hand, as they are read."""
    return [json.loads(json.dumps(entry)) for entry in journal.recent]


def broken(path: Path, content: list[bytes]) -> str:
    """What is said of a journal with these lines."""
    path.write_bytes(b"".join(content))
    with pytest.raises(JournalError) as refused:
        list(read(path))
    return str(refused.value)


@pytest.mark.parametrize("place", range(7))
def test_changed_line(tmp_path: Path, place: int) -> None:
    """A changed line is the first that breaks the chain."""
    path, content = written(tmp_path)
    content[place] = content[place].replace(b'"time":"2026', b'"time":"2027')
    assert broken(path, content).startswith(f"{path}: line {place + 1} breaks the chain")


@pytest.mark.parametrize("place", range(6))
def test_removed_line(tmp_path: Path, place: int) -> None:
    """Where a line was removed, the one that is there now breaks the chain."""
    path, content = written(tmp_path)
    del content[place]
    assert f"line {place + 1} breaks" in broken(path, content)


@pytest.mark.parametrize("place", range(7))
def test_inserted_line(tmp_path: Path, place: int) -> None:
    """A line put in breaks the chain, also when it is a copy of its neighbour."""
    path, content = written(tmp_path)
    content.insert(place, content[place])
    assert f"line {place + 2} breaks" in broken(path, content)


@pytest.mark.parametrize("place", range(6))
def test_swapped_lines(tmp_path: Path, place: int) -> None:
    """Two lines in the wrong order break the chain at the first of them."""
    path, content = written(tmp_path)
    content[place], content[place + 1] = content[place + 1], content[place]
    assert f"line {place + 1} breaks" in broken(path, content)


@pytest.mark.parametrize("line", [b"\n", b"hello\n", b"[]\n", b"{}\n", b"\xff\n", b'{"seq": 8}\n', b"null\n"])
def test_line_that_is_no_entry(tmp_path: Path, line: bytes) -> None:
    """What is no entry at all breaks the chain too."""
    path, content = written(tmp_path)
    assert "line 8 breaks" in broken(path, [*content, line])


def test_rehashed_line_breaks_the_next(tmp_path: Path) -> None:
    """Who changes a line and makes its hash anew is found out at the line after it."""
    path, content = written(tmp_path)
    forged = Journal(tmp_path / "forged")
    for line in content[:3]:
        entry = json.loads(line)
        forged.append(START, {**{k: v for k, v in entry.items() if k not in {"seq", "prev", "hash"}}, "model": "x"})
    forged.close()
    content[:3] = (tmp_path / "forged").read_bytes().splitlines(keepends=True)
    assert "line 4 breaks" in broken(path, content)


def test_continues(tmp_path: Path) -> None:
    """A journal that was closed goes on where it stood."""
    path, content = written(tmp_path)
    again = Journal(path)
    assert again.position() == (7, json.loads(content[-1])["hash"], [])
    write(again, 3, 4)
    again.close()
    assert path.read_bytes().startswith(b"".join(content))
    assert len(list(read(path))) == 9


@pytest.mark.parametrize("keep", [1, 20, -1])
def test_incomplete_last_line_is_cut(tmp_path: Path, keep: int) -> None:
    """What a crash left of a last line is cut off, and the chain goes on from the one before."""
    path, content = written(tmp_path)
    path.write_bytes(b"".join(content[:-1]) + content[-1][:keep])
    again = Journal(path)
    assert again.position()[0] == 6
    again.append(START, {"kind": "start"})
    again.close()
    assert [entry["kind"] for entry in read(path)][-2:] == ["alert", "start"]


def test_nothing_but_an_incomplete_line(tmp_path: Path) -> None:
    """A journal that a crash left with half a first line begins anew."""
    path = tmp_path / "journal"
    path.write_bytes(b'{"seq":1,')
    Journal(path).close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("earlier", [0, 2])
def test_broken_journal_is_set_aside(tmp_path: Path, earlier: int) -> None:
    """An agent does not go on with a chain that does not hold: it keeps the file under a free name and begins the next."""
    path, content = written(tmp_path)
    bad = b"".join(content[1:])
    path.write_bytes(bad)
    for number in range(1, earlier + 1):
        (tmp_path / f"journal.broken-{number}").write_text("before")
    again = Journal(path)
    assert again.set_aside == {
        "kind": "journal_set_aside",
        "file": f"journal.broken-{earlier + 1}",
        "problem": f"{path}: line 1 breaks the chain: it, or the line before it, was changed or removed",
    }
    # What the checkpoint knows went with the old file: that is no second problem.
    again.resume(7, json.loads(content[-1])["hash"])
    again.append(START, again.set_aside)
    write(again, 0, 1)
    again.close()
    assert (tmp_path / f"journal.broken-{earlier + 1}").read_bytes() == bad
    assert all((tmp_path / f"journal.broken-{n}").read_text() == "before" for n in range(1, earlier + 1))
    assert [entry["kind"] for entry in read(path)] == ["journal_set_aside", "alert", "decision"]


@pytest.mark.parametrize("keep", range(1, 8))
@pytest.mark.parametrize("known", range(8))
def test_cut_tail(tmp_path: Path, known: int, keep: int) -> None:
    """A journal that was cut before the entry that a checkpoint knows is set aside; one cut after it cannot be told."""
    path, content = written(tmp_path)
    path.write_bytes(b"".join(content[:keep]))
    again = Journal(path)
    again.resume(known, json.loads(content[known - 1])["hash"] if known else FIRST)
    again.close()
    if keep >= known:
        assert again.set_aside is None
        assert path.read_bytes() == b"".join(content[:keep])
    else:
        assert again.set_aside is not None
        assert again.set_aside["problem"] == (
            f"{path}: entries were cut off its end, it has {keep} and the checkpoint knows {known}"
        )
        assert (tmp_path / "journal.broken-1").read_bytes() == b"".join(content[:keep])
        assert path.read_bytes() == b""
        assert again.position() == (0, FIRST, [])


@pytest.mark.parametrize("emptied", [False, True])
def test_removed_journal(tmp_path: Path, *, emptied: bool) -> None:
    """A journal that is gone is missed; there is no file to keep."""
    path, content = written(tmp_path)
    path.write_bytes(b"") if emptied else path.unlink()
    again = Journal(path)
    again.resume(7, json.loads(content[-1])["hash"])
    assert again.set_aside == {
        "kind": "journal_set_aside",
        "file": None,
        "problem": f"{path}: the journal was removed or emptied",
    }
    again.append(START, again.set_aside)
    again.close()
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]
    assert len(list(read(path))) == 1


def test_journal_written_anew(tmp_path: Path) -> None:
    """A journal with another history is found out, though its chain holds and it is long enough."""
    path, content = written(tmp_path)
    path.unlink()
    forged = Journal(path)
    write(forged, 0, 6)
    forged.close()
    again = Journal(path)
    again.resume(5, json.loads(content[4])["hash"])
    again.close()
    assert again.set_aside is not None
    assert "entry 5 is not the one that the checkpoint knows" in again.set_aside["problem"]
    assert len(list(read(tmp_path / "journal.broken-1"))) == 12


def test_one_writer(tmp_path: Path) -> None:
    """A second writer is refused, changes nothing, and is let in once the first has closed."""
    path, content = written(tmp_path)
    first = Journal(path)
    with path.open("ab") as file:
        file.write(b'{"half')  # as the second would see the first in the middle of a line
    with pytest.raises(StateError, match="journal: another agent writes to it: stop that agent, or give this one"):
        Journal(path)
    assert path.read_bytes() == b"".join(content) + b'{"half'
    first.close()
    Journal(path).close()


def test_lock_beside(tmp_path: Path) -> None:
    """A lock on what is replaced outlives the replacing, and is free again when let go."""
    path = tmp_path / "state"
    first = Lock(path)
    path.write_text("one")
    (tmp_path / "draft").write_text("two")
    (tmp_path / "draft").replace(path)
    with pytest.raises(StateError, match="state: another agent writes to it"):
        Lock(path)
    first.close()
    first.close()
    second = Lock(path)
    second.close()


def test_lock_that_cannot_be_made(tmp_path: Path) -> None:
    """Where no file can be made there is no lock, and no error: writing the state will tell."""
    Lock(tmp_path / "none" / "state").close()


@pytest.mark.parametrize("position", range(8))
def test_said_again_after_a_restart(tmp_path: Path, position: int) -> None:
    """What is found again after a restart from an older checkpoint is not written again; what is new is."""
    path, content = written(tmp_path)
    again = Journal(path)
    again.resume(position, json.loads(content[position - 1])["hash"] if position else FIRST)
    again.append(START + 99, {"kind": "start"})
    for place in range(max(position - 1, 0), 8):
        number, of_decision = divmod(place, 2)
        entry = decision_entry(decision(number), told_then(number)) if of_decision else alert_entry(alert(number))
        again.append(START + number / 3, entry)
    again.close()
    assert [(entry["kind"], entry.get("n")) for entry in read(path)] == [
        ("start", None),
        *[pair for n in range(3) for pair in (("alert", n), ("decision", None))],
        ("start", None),
        ("alert", 3),
        ("decision", None),
    ]


def test_trigger(tmp_path: Path) -> None:
    """A trigger is told with all its fields: times as people read them, the pattern as a tagged object, and a sentence."""
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.append(START + 9000, trigger_entry(trigger(tests=(insertion("v2", TriggerState.CONFIRMED),))))
    journal.close()
    (entry,) = read(path)
    assert {"trigger", "state", "text", "label", "log_e", "contrast", "predictions", "examples"} <= set(entry)
    assert (entry["kind"], entry["model"], entry["model_version"]) == ("trigger", "sms-spam", "v2")
    assert (entry["first_seen"], entry["last_seen"]) == ("2026-01-05T09:55:00.250Z", "2026-01-05T10:13:20.500Z")
    assert entry["pattern"] == {
        "type": "phrase",
        "words": ["special", "discount", "code", "xyz"],
        "said": "",
        "place": "",
    }
    assert entry["versions"][1] == {"model_version": "v2", "matched": 16, "answered": 15, "flipped": 14, "works": True}
    assert entry["sources"] == [["client-7", 9], ["client-é", 6]]
    assert entry["tests"][0]["verdict"] == "confirmed"
    assert entry["log_e"] == 0.666667
    assert entry["summary"].startswith("sms-spam v2 answers 'ham' where the text has 'special discount code xyz': ")
    assert entry["summary"].endswith(
        "Confirmed by insertion: 18 of 20 verified inputs got the class with it, 0 of 20 with something else in its place."
    )


@pytest.mark.parametrize(
    "pattern",
    [
        PHRASE,
        Values(items=(Item(feature="features.x", low=1 / 3, high=0.1 + 0.2), Item(feature="features.y", value="a"))),
        Values(items=(Item(feature="features.x"),)),
        Patch(
            row=1, column=2, height=1, width=2, image_height=8, image_width=8, pixels=(1 / 3, 1e-9), tolerance=0.1 + 0.2
        ),
        Cell(table=1, signs=5, thresholds=(1 / 3, -1e-9)),
    ],
)
def test_patterns_are_told_to_the_last_bit(tmp_path: Path, pattern: Pattern) -> None:
    """Whoever looks for a pattern of the journal looks for the very pattern that was found."""
    journal = Journal(tmp_path / "journal")
    journal.append(START, trigger_entry(trigger(pattern=pattern)))
    journal.close()
    (entry,) = read(tmp_path / "journal")
    assert msgspec.convert(entry["pattern"], Pattern) == pattern


def test_no_number_that_json_has_not(tmp_path: Path) -> None:
    """Open ends of an interval and evidence of nothing are null: every reader of JSON reads the journal."""
    odd = trigger(pattern=Values(items=(Item(feature="x", low=-math.inf, high=1.0),)), log_e=-math.inf)
    journal = Journal(tmp_path / "journal")
    journal.append(START, trigger_entry(odd))
    journal.close()
    (entry,) = read(tmp_path / "journal")
    assert b"Infinity" not in (tmp_path / "journal").read_bytes()
    assert entry["log_e"] is None
    assert msgspec.convert(entry["pattern"], Pattern) == Values(items=(Item(feature="x", high=1.0),))


def test_a_trigger_is_not_told_twice_after_a_crash(tmp_path: Path) -> None:
    """Read again after the checkpoint, the same trigger is not written again; one with another count is."""
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.append(START, {"kind": "start"})
    position = journal.position()
    journal.append(START + 1, trigger_entry(trigger()))
    journal.close()
    again = Journal(path)
    again.resume(*position)
    again.append(START + 1, trigger_entry(trigger()))
    again.append(START + 2, trigger_entry(trigger(predictions=30)))
    again.close()
    assert [(e["kind"], e.get("predictions")) for e in read(path)] == [
        ("start", None),
        ("trigger", 15),
        ("trigger", 30),
    ]


def test_accusation(tmp_path: Path) -> None:
    """An accusation says who is accused as what, of which model, since when, and which predictions not to retrain on."""
    journal = Journal(tmp_path / "journal")
    journal.append(START + 7200, accusation_entry("mail", accusation(1)))
    journal.close()
    (entry,) = read(tmp_path / "journal")
    told = {name: said for name, said in entry.items() if name not in {"seq", "prev", "hash"}}
    assert told == {
        "time": "2026-01-05T10:00:00.000Z",
        "kind": "accusation",
        "model": "mail",
        "model_version": None,
        "accused": "group",
        "source": "campaign-1",
        "members": ["annotator-3", "annotator-é"],
        "labels": 40,
        "disagreements": 37,
        "expected": 0.3,
        "rate": 0.925,
        "predicted": "spam",
        "label": "ham",
        "log_e": 0.666667,
        "onset": "2026-01-05T08:00:00.100Z",
        "first": "2026-01-05T08:00:00.000Z",
        "last": "2026-01-05T09:00:00.000Z",
        "prediction_ids": ["p1", "p2"],
    }


def test_accused_again_after_a_restart(tmp_path: Path) -> None:
    """An accusation between an alert and a decision is a finding like them: said again word for word, it stays one line."""
    path = tmp_path / "journal"

    def story(journal: Journal) -> None:
        journal.append(START, alert_entry(alert(0)))
        journal.append(START, accusation_entry("mail", accusation(0)))
        journal.append(START, decision_entry(decision(0), told_then(0)))

    journal = Journal(path)
    story(journal)
    journal.close()
    again = Journal(path)
    again.resume(0, FIRST)
    story(again)
    again.append(START + 1, accusation_entry("mail", accusation(1)))
    again.close()
    assert [entry["kind"] for entry in read(path)] == ["alert", "accusation", "decision", "accusation"]


def test_found_otherwise_after_a_restart(tmp_path: Path) -> None:
    """If something else is found the second time, it is written, and all after it."""
    path, content = written(tmp_path)
    again = Journal(path)
    again.resume(1, json.loads(content[0])["hash"])
    again.append(START, alert_entry(alert(0)))
    again.append(START, alert_entry(alert(7)))
    write(again, 1, 2)
    again.close()
    assert len(list(read(path))) == 7 + 3


TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    entries=st.lists(
        st.dictionaries(
            TEXT.filter(lambda key: key not in {"seq", "prev", "hash", "time", "kind"}),
            TEXT | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.none() | st.lists(TEXT),
            max_size=4,
        ),
        max_size=5,
    )
)
def test_any_entry_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, Any]]
) -> None:
    """Whatever numbers and characters an entry has, its line is one line, holds, and says the same."""
    path = tmp_path_factory.mktemp("journal") / "journal"
    journal = Journal(path)
    for entry in entries:
        journal.append(START, {**entry, "kind": "alert"})
    journal.close()
    found = list(read(path))
    for entry, told in zip(entries, found, strict=True):
        assert {key: told[key] for key in entry} == entry
    again = Journal(path)
    assert again.position()[0] == len(entries)
    again.close()


def test_without_a_file() -> None:
    """A replay without a journal keeps nothing, and has no entry to come back to."""
    journal = Journal(None)
    write(journal, 0, 2)
    assert journal.position() == (0, FIRST, [])
    journal.resume(0, FIRST)
    journal.close()
    assert journal.set_aside is None


def test_times() -> None:
    """Times are RFC 3339 in UTC with milliseconds."""
    assert rfc3339(START + 0.0625) == "2026-01-05T08:00:00.062Z"


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """Files of this process may not grow beyond `most` bytes; Python ignores the signal, so that writes fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@given(room=st.integers(0, 4000), numbers=st.integers(1, 6))
def test_full_disk(tmp_path_factory: pytest.TempPathFactory, room: int, numbers: int) -> None:
    """What the disk refuses waits; nothing of it stands in the file before it is whole; then all is written in its order."""
    path, content = written(tmp_path_factory.mktemp("journal"))
    most = len(b"".join(content)) + room
    journal = Journal(path)
    with full_disk(most):
        write(journal, 3, 3 + numbers)
        entries = list(read(path))
        assert len(entries) + journal.unwritten == 7 + 2 * numbers
        assert recent(journal) == entries
        assert journal.write() == (journal.unwritten == 0) == (journal.failures == 0)
    assert journal.write()
    assert journal.unwritten == 0
    assert list(read(path))[: len(entries)] == entries
    journal.close()
    calm = Journal(path.with_name("calm"))
    calm.append(START, {"kind": "start"})
    write(calm, 0, 3 + numbers)
    calm.close()
    assert path.read_bytes() == path.with_name("calm").read_bytes()


@pytest.mark.parametrize("after", [0, 1, 3, 4])
def test_waiting_entries_survive_a_restart(tmp_path: Path, after: int) -> None:
    """A checkpoint holds what waited; what of it was written between the checkpoint and the crash is not written twice."""
    path, content = written(tmp_path)
    most = len(b"".join(content))
    journal = Journal(path)
    with full_disk(most):
        journal.append(START, {"kind": "start"})
        write(journal, 3, 4)
        journal.append(START, {"kind": "stop"})
        position = json.loads(json.dumps(journal.position()))
        assert journal.unwritten == 4
    journal.close()
    crashed = Journal(path)
    crashed.resume(position[0], position[1], position[2][:after])
    assert crashed.write()
    crashed.close()
    again = Journal(path)
    again.resume(*position)
    assert again.unwritten == 4 - after
    again.append(START, {"kind": "start"})
    assert again.unwritten == 0
    again.close()
    assert [entry["kind"] for entry in read(path)][7:] == ["start", "alert", "decision", "stop", "start"]


def test_waiting_entries_follow_the_word_of_a_journal_set_aside(tmp_path: Path) -> None:
    """Also a journal that was removed loses nothing that waited; the new one begins by saying why it is new."""
    path, _ = written(tmp_path)
    path.unlink()
    again = Journal(path)
    again.resume(7, "1" * 64, [{"kind": "alert", "time": "2026-01-05T08:00:00.000Z"}])
    assert again.set_aside is not None
    again.append(START, again.set_aside)
    again.close()
    assert [entry["kind"] for entry in read(path)] == ["journal_set_aside", "alert"]


def test_too_many_wait(tmp_path: Path) -> None:
    """What waits is bounded; of the rest there is the number, in its place in the chain."""
    path, content = written(tmp_path)
    journal = Journal(path)
    with full_disk(len(b"".join(content))):
        for number in range(MOST_UNWRITTEN + 5):
            journal.append(START + number, {"kind": "start"})
        assert journal.unwritten == MOST_UNWRITTEN + 1
    journal.append(START, {"kind": "stop"})
    journal.close()
    entries = list(read(path))
    assert len(entries) == 7 + MOST_UNWRITTEN + 1
    assert (entries[-1]["kind"], entries[-1]["entries"]) == ("journal_gap", 6)


def test_recent_entries_are_at_hand(tmp_path: Path) -> None:
    """The last entries of the file, as they stand there, also after a restart; not more than so many."""
    path = tmp_path / "journal"
    for first in (0, MOST_RECENT):
        journal = Journal(path)
        write(journal, first, first + MOST_RECENT)
        assert recent(journal) == list(read(path))[-MOST_RECENT:]
        journal.close()
    assert recent(Journal(None)) == []


def test_journal_that_cannot_be_opened(tmp_path: Path) -> None:
    """An agent whose journal cannot be written from the start does not start: it says what to do."""
    with pytest.raises(
        StateError, match=r"the journal cannot be written .*: make it writable, or choose another `state.journal`"
    ):
        Journal(tmp_path)
