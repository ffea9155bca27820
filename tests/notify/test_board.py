"""What waits for a receiver: bounded, in order, the newest state in the place of an older one, and nothing forgotten that stands."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from poisonwatch.notify.board import MOST_TRIES, Board
from poisonwatch.notify.notices import UNSAID, Notice, closed, key_of
from tests.notify.standing import NOW, page, ticket

SIZE = 4


def test_what_is_firing_is_told_once() -> None:
    """The same state again is no news; its words are those of the last call."""
    board = Board()
    assert board.post(NOW, [page()])
    later = msgspec.structs.replace(page(), description="more of them")
    assert not board.post(NOW, [later])
    assert board.due(0.0) == [later]
    board.took(board.due(0.0), 0.0)
    assert not board.post(NOW, [page()])
    assert (board.due(0.0), board.waiting(), board.next_due()) == ([], 0, None)


def test_with_resends_everything_is_told_again() -> None:
    """What stands is told together every so many seconds, and at once when something is new."""
    board = Board(resend=60.0)
    board.post(NOW, [page()])
    board.took(board.due(5.0), 5.0)
    assert board.due(64.9) == []
    assert board.next_due() == 65.0
    assert board.due(65.0) == [page()]
    board.post(NOW, [page(), ticket()])
    assert {notice.name for notice in board.due(6.0)} == {"PoisonwatchRollbackRecommended", "PoisonwatchInputDrift"}


def test_what_is_not_mentioned_has_ended_and_is_not_called_healthy() -> None:
    """A version that is gone is not mentioned any more: its page is told as ended, when it began, and what that does not mean."""
    board = Board()
    board.post(NOW, [page()])
    board.took(board.due(0.0), 0.0)
    board.post(NOW + 9, [])
    (end,) = board.due(0.0)
    assert (end.ended, end.began, end.description) == (NOW + 9, page().began, UNSAID)
    board.took([end], 0.0)
    assert board.next_due() is None


def test_the_end_of_what_was_never_told_is_not_told() -> None:
    """After a start nobody is told of the end of what he never heard of."""
    board = Board()
    assert not board.post(NOW, [closed(page(), NOW)])
    assert board.next_due() is None


def test_pages_go_before_tickets() -> None:
    """Whoever is to get up does not wait behind a hundred tickets, nor for room."""
    board = Board(most=SIZE)
    board.post(NOW, [*(ticket(f"v{number}") for number in range(10)), page()])
    assert board.due(0.0) == [page()]
    assert board.dropped == 10 - SIZE + 1
    full = Board(most=SIZE)
    tickets = [ticket(f"v{number}") for number in range(10)]
    full.post(NOW, tickets)
    full.post(NOW, [*tickets, page("v8"), page("v9")])
    assert full.due(0.0) == [page("v8")]
    assert full.waiting() == SIZE


def test_the_end_of_something_is_given_up_and_what_stands_is_not() -> None:
    """A receiver that never comes back is not told of ends for ever."""
    board = Board()
    board.post(NOW, [page()])
    for _ in range(2 * MOST_TRIES):
        board.kept(board.due(0.0), 0.0)
    assert (board.waiting(), board.dropped) == (1, 0)
    board.post(NOW, [])
    for _ in range(MOST_TRIES):
        assert board.dropped == 0
        board.kept(board.due(0.0), 0.0)
    assert (board.waiting(), board.dropped, board.next_due()) == (0, 1, None)


def test_a_message_that_fails_does_not_hold_up_the_others() -> None:
    """What was not accepted goes behind what waits."""
    board = Board()
    board.post(NOW, [ticket("v1"), ticket("v2")])
    board.kept(board.due(0.0), 0.0)
    assert board.due(0.0) == [ticket("v2")]
    board.kept(board.due(0.0), 10.0)
    assert board.due(0.0) == [ticket("v1")]
    assert board.next_due() == 0.0


@dataclass
class Heard:
    """What a receiver accepted of one thing, in order: (time of the state, whether it was firing)."""

    states: list[tuple[float, bool]] = field(default_factory=list)


class Delivery(RuleBasedStateMachine):
    """A loop that says what stands, and a receiver that accepts, refuses or is slow, in any order."""

    resend: float | None = None

    def __init__(self) -> None:
        super().__init__()
        self.board = Board(self.resend, most=SIZE)
        self.now = NOW
        self.at = 0.0
        self.standing: dict[str, Notice] = {}
        self.in_flight: list[Notice] = []
        self.heard: dict[tuple[str, str, str], Heard] = {}

    @rule(
        changed=st.dictionaries(
            st.sampled_from("abcdef"), st.sampled_from(["page", "ticket", "end", "gone"]), max_size=4
        )
    )
    def says(self, changed: dict[str, str]) -> None:
        """One turn of the loop."""
        self.now += 1.0
        ends = []
        for name, state in changed.items():
            before = self.standing.pop(name, None)
            if state in {"page", "ticket"}:
                self.standing[name] = (page if state == "page" else ticket)(name, self.now)
            elif state == "end" and before is not None:
                ends.append(closed(before, self.now, "over"))
        self.board.post(self.now, [*self.standing.values(), *ends])

    @precondition(lambda self: not self.in_flight)
    @rule(seconds=st.sampled_from([0.0, 1.0, 100.0]))
    def sends(self, seconds: float) -> None:
        """The sender takes what is due."""
        self.at += seconds
        due = self.board.next_due()
        self.in_flight = self.board.due(self.at)
        assert bool(self.in_flight) == (due is not None and due <= self.at)

    @precondition(lambda self: self.in_flight)
    @rule(accepted=st.booleans(), wait=st.sampled_from([0.0, 2.0]))
    def answers(self, accepted: bool, wait: float) -> None:
        """The receiver answers, maybe after more turns of the loop."""
        sent, self.in_flight = self.in_flight, []
        if accepted:
            for notice in sent:
                self.hears(notice)
            self.board.took(sent, self.at)
        else:
            self.board.kept(sent, self.at + wait)

    def hears(self, notice: Notice) -> None:
        """In order of time, and each state once; again only where everything is, or where it had lost its place to a page."""
        states = self.heard.setdefault(key_of(notice), Heard()).states
        state = (notice.began if notice.ended is None else notice.ended, notice.ended is None)
        again = self.resend is not None or self.board.dropped > 0
        assert not states or states[-1][0] < state[0] or (again and states[-1] == state)
        states.append(state)

    @invariant()
    def is_bounded(self) -> None:
        """However many things there are."""
        assert self.board.waiting() <= SIZE
        assert len(self.board.due(1e9)) <= SIZE

    def teardown(self) -> None:
        """Once the receiver accepts everything it knows all that stands, as far as there is room, and the end of all else that it heard of."""
        if self.in_flight:
            self.answers(accepted=True, wait=0.0)
        for _ in range(2 * SIZE):
            self.board.post(self.now, list(self.standing.values()))
            self.sends(100.0)
            if self.in_flight:
                self.answers(accepted=True, wait=0.0)
        assert self.board.waiting() == 0
        known = {key for key, heard in self.heard.items() if heard.states[-1][1]}
        standing = {key_of(notice) for notice in self.standing.values()}
        pages = {key_of(notice) for notice in self.standing.values() if notice.severity == "critical"}
        assert len(standing & known) >= min(SIZE, len(standing))
        assert len(pages & known) >= min(SIZE, len(pages))
        if not self.board.dropped:
            assert known == standing


class Resending(Delivery):
    """The same for an Alertmanager."""

    resend = 50.0


TestDelivery = Delivery.TestCase
TestResending = Resending.TestCase


def test_what_found_no_room_is_counted_once() -> None:
    """The loop says what stands again and again: what found no room is not counted again at each turn, and is told once there is some."""
    board = Board(most=2)
    tickets = [ticket(f"v{number}") for number in range(5)]
    for _ in range(3):
        board.post(NOW, tickets)
        assert (board.dropped, board.waiting()) == (3, 2)
    board.post(NOW, tickets[1:])
    while due := board.due(0.0):
        board.took(due, 0.0)
    board.post(NOW, tickets[1:])
    assert board.due(0.0) == [ticket("v2")]
    assert board.dropped == 3
