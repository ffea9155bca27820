"""The prober: answers come back in order, trouble comes back as a reason, and the loop never waits for either."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.config.endpoint import KserveV1Config
from poisonwatch.errors import ProbeError
from poisonwatch.probe.endpoint import endpoint_of
from poisonwatch.probe.prober import MOST_JOBS, MOST_QUESTIONS, Outcome, Prober, Rate
from tests.probe.answering import listening
from tests.probe.models import InProcess, answering, judge, messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poisonwatch.probe.endpoint import Endpoint
    from poisonwatch.types import Answer, Question

QUESTIONS = [one.question for one in messages()]
FAST = 1e6


def _endpoint(url: str, timeout: float = 5.0) -> Endpoint:
    config = KserveV1Config(
        kind="kserve_v1", url=url, timeout_seconds=timeout, instance="{{text}}", label="/label", confidence="/sure"
    )
    return endpoint_of(config, "mail")


def _collected(prober: Prober, count: int) -> list[Outcome]:
    """Outcomes as they come, for at most twenty seconds."""
    found: list[Outcome] = []
    until = time.monotonic() + 20
    while len(found) < count and time.monotonic() < until:
        found += prober.results()
        time.sleep(0.002)
    return found


def test_a_real_server_answers_in_order() -> None:
    """Each job comes back with the answers to its own questions by its own version, in their order."""
    with answering() as url:
        prober = Prober(_endpoint(url), FAST)
        assert all(prober.submit(str(n), QUESTIONS[n : n + 5], f"v{1 + n % 2}") for n in range(4))
        outcomes = _collected(prober, 4)
        prober.close()
    assert [outcome.purpose for outcome in outcomes] == ["0", "1", "2", "3"]
    for n, outcome in enumerate(outcomes):
        expected = [judge(question.text or "", f"v{1 + n % 2}") for question in QUESTIONS[n : n + 5]]
        assert [(a.label, a.confidence) for a in outcome.answers] == [(a.label, a.confidence) for a in expected]
        assert outcome.problem is None
    assert (prober.asked, prober.answered, dict(prober.failed)) == (20, 20, {})


def test_a_failure_that_passes_costs_attempts_and_nothing_else() -> None:
    """A server that is unavailable twice is asked a third time, after the configured waits."""
    with answering(failing=2) as url:
        prober = Prober(_endpoint(url), FAST, waits=(0.05, 0.1))
        began = time.monotonic()
        assert prober.submit("golden", QUESTIONS[:3], "v1")
        (outcome,) = _collected(prober, 1)
        prober.close()
    assert time.monotonic() - began >= 0.15
    assert len(outcome.answers) == 3
    assert (prober.asked, prober.answered, dict(prober.failed)) == (9, 3, {"endpoint": 2})


def test_an_endpoint_that_is_not_there_is_a_reason() -> None:
    """After the last attempt the job comes back with the problem in words, and the next job is tried as well."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{door.getsockname()[1]}/{{model_version}}"
        prober = Prober(_endpoint(url), FAST, waits=(0.01,))
        assert prober.submit("a", QUESTIONS[:1], "v1")
        assert prober.submit("b", QUESTIONS[:1], "v1")
        outcomes = _collected(prober, 2)
        prober.close()
    assert [outcome.answers for outcome in outcomes] == [(), ()]
    assert all(outcome.problem for outcome in outcomes)
    assert dict(prober.failed) == {"endpoint": 4}


class _Odd(InProcess):
    """An endpoint with a defect: it raises what nobody expects, or forgets an answer."""

    def ask(self, questions: Sequence[Question], model_version: str) -> list[Answer]:
        """All answers but the first."""
        return super().ask(questions, model_version)[1:]


def test_a_defect_ends_neither_the_thread_nor_the_agent() -> None:
    """Whatever an endpoint raises is counted, and the thread goes on; too few answers are no answers."""
    odd = _Odd()
    odd.broken = ZeroDivisionError("oops")
    prober = Prober(odd, FAST, waits=())
    assert prober.submit("a", QUESTIONS[:2], "v1")
    (first,) = _collected(prober, 1)
    odd.broken = None
    assert prober.submit("b", QUESTIONS[:2], "v1")
    (second,) = _collected(prober, 1)
    prober.close()
    assert first.problem == "ZeroDivisionError: oops"
    assert second.problem == "1 answers to 2 questions"
    assert dict(prober.failed) == {"defect": 1, "incomplete": 1}


def test_nothing_waits_for_a_server_that_hangs() -> None:
    """While a request hangs the loop submits and collects at once, is refused what is too much, and closing ends it.

    Eight jobs at most are under way; the request would hang for 30 s, closing may take the 5 s that the thread is given.
    """
    stop = threading.Event()

    def hang(_: socket.socket) -> None:
        stop.wait(20)

    with listening(hang) as server:
        prober = Prober(_endpoint(server.url + "/{model_version}", timeout=30.0), FAST, waits=())
        began = time.monotonic()
        accepted = [prober.submit("x", QUESTIONS[:1], "v1") for _ in range(MOST_JOBS + 3)]
        assert prober.results() == []
        assert time.monotonic() - began < 1
        assert accepted == [True] * MOST_JOBS + [False] * 3
        until = time.monotonic() + 10
        while not server.requests and time.monotonic() < until:
            time.sleep(0.01)
        began = time.monotonic()
        prober.close()
        stop.set()
    assert server.requests
    assert time.monotonic() - began < 4.5
    assert not prober.submit("x", QUESTIONS[:1], "v1")


def test_a_job_has_a_size() -> None:
    """No questions, and more than fit into one job, are refused."""
    prober = Prober(InProcess(), FAST)
    assert not prober.submit("x", [], "v1")
    assert not prober.submit("x", QUESTIONS[:1] * (MOST_QUESTIONS + 1), "v1")
    assert prober.submit("x", QUESTIONS[:1] * MOST_QUESTIONS, "v1")
    prober.close()


@given(
    st.floats(1, 600),
    st.integers(1, 64),
    st.lists(st.tuples(st.integers(1, 64), st.floats(0, 100)), min_size=1, max_size=30),
)
def test_no_stretch_of_time_has_more_than_the_rate(
    per_minute: float, burst: int, asked: list[tuple[int, float]]
) -> None:
    """Whoever waits as told has used, in every stretch of time, at most what may be saved up, one job, and the rate times its length."""
    now = 0.0
    rate = Rate(per_minute, burst, lambda: now)
    used: list[tuple[float, int]] = []
    for tokens, pause in asked:
        now += pause
        now += rate.wait(tokens)
        used.append((now, tokens))
    for first in range(len(used)):
        for last in range(first, len(used)):
            total = sum(tokens for _, tokens in used[first : last + 1])
            length = used[last][0] - used[first][0]
            assert total <= burst + 64 + length * per_minute / 60 + 1e-6


def test_the_rate_holds_for_real() -> None:
    """600 a minute, 64 saved up: 84 questions take at least the 2 s that the last 20 must wait for."""
    prober = Prober(InProcess(), 600.0)
    began = time.monotonic()
    for _ in range(7):
        assert prober.submit("x", QUESTIONS[:12], "v1")
    outcomes = _collected(prober, 7)
    prober.close()
    assert len(outcomes) == 7
    assert time.monotonic() - began >= 1.9


def test_after_closing_there_is_a_reason() -> None:
    """A job that waits for its next attempt when the agent closes is given up at once."""
    broken = InProcess()
    broken.broken = ProbeError("no")
    prober = Prober(broken, FAST, waits=(60.0,))
    assert prober.submit("x", QUESTIONS[:1], "v1")
    time.sleep(0.05)
    began = time.monotonic()
    prober.close()
    assert time.monotonic() - began < 2
    (outcome,) = _collected(prober, 1)
    assert outcome.answers == ()
    assert outcome.failures == ("endpoint",)


def test_a_slow_rate_still_asks() -> None:
    """The first question is asked at once, even where less than one a minute is allowed: ten seconds are far below the two minutes of the rate."""
    prober = Prober(InProcess(), 0.5)
    began = time.monotonic()
    assert prober.submit("x", QUESTIONS[:1], "v1")
    (outcome,) = _collected(prober, 1)
    prober.close()
    assert len(outcome.answers) == 1
    assert time.monotonic() - began < 10
