"""The thread that asks an endpoint, so that nothing of what the endpoint does reaches the loop.

The loop hands jobs over and collects what became of them; it never waits, and whatever fails comes back as a reason. Both
queues are bounded by one number: of a prober no more than `MOST_JOBS` jobs are under way until they are collected.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from poisonwatch.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from poisonwatch.probe.endpoint import Endpoint
    from poisonwatch.types import Answer, Question

MOST_JOBS = 8
"""Jobs that are under way at once."""

MOST_QUESTIONS = 64
"""Questions of one job, which is one request where the protocol allows it."""

WAITS = (1.0, 4.0, 16.0)
"""Seconds before each further attempt of a job that failed."""

LEAVE_SECONDS = 5.0
"""How long closing waits for a request that is under way."""


class Outcome(NamedTuple):
    """What became of a job: the answers in the order of its questions, or none and the reason in words."""

    purpose: str
    model_version: str
    answers: tuple[Answer, ...]
    problem: str | None
    asked: int
    failures: tuple[str, ...]


class _Job(NamedTuple):
    purpose: str
    questions: tuple[Question, ...]
    model_version: str


class Rate:
    """A token bucket: `per_minute` tokens a minute, saved up for at most `burst`; `clock` gives seconds."""

    def __init__(self, per_minute: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_minute / 60.0
        self._burst = burst
        self._clock = clock
        self._tokens = burst
        self._at = clock()

    def wait(self, tokens: float) -> float:
        """Take tokens, at once; seconds to wait before they may be used. Debts are paid by those who come later."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        self._tokens -= tokens
        return max(0.0, -self._tokens / self._per_second)


class Prober:
    """Asks one endpoint. `waits` are the seconds before each further attempt.

    `asked` counts questions that were sent, `answered` those with an answer, `failed` failed attempts by reason: `endpoint` for
    anything that it did instead of answering, `incomplete` for another number of answers than questions, `defect` for an error of ours.
    """

    def __init__(self, endpoint: Endpoint, per_minute: float, waits: Sequence[float] = WAITS) -> None:
        self.asked = 0
        self.answered = 0
        self.failed: Counter[str] = Counter()
        self._endpoint = endpoint
        self._rate = Rate(per_minute, max(1.0, min(per_minute, MOST_QUESTIONS)))
        self._waits = tuple(waits)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._under_way = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prober", daemon=True)
        self._thread.start()

    def submit(self, purpose: str, questions: Sequence[Question], model_version: str) -> bool:
        """Have questions asked; False when too much is under way, or there is more than fits into one job."""
        full = self._under_way >= MOST_JOBS or self._closed.is_set()
        if full or not 0 < len(questions) <= MOST_QUESTIONS:
            return False
        self._under_way += 1
        self._jobs.put(_Job(purpose, tuple(questions), model_version))
        return True

    def results(self) -> list[Outcome]:
        """What became of jobs since the last call, in the order in which they ended."""
        found: list[Outcome] = []
        while self._under_way:
            try:
                outcome = self._outcomes.get_nowait()
            except Empty:
                break
            self._under_way -= 1
            self.asked += outcome.asked
            self.answered += len(outcome.answers)
            self.failed.update(outcome.failures)
            found.append(outcome)
        return found

    def close(self) -> None:
        """Ask nothing any more; what is under way is given up."""
        self._closed.set()
        self._endpoint.close()
        self._jobs.put(None)
        self._thread.join(LEAVE_SECONDS)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closed.is_set():
            self._outcomes.put(self._done(job))

    def _done(self, job: _Job) -> Outcome:
        """Ask until it is answered, or for as often as is tried."""
        failures: list[str] = []
        problem, asked = "the agent was closed", 0
        for wait in (0.0, *self._waits):
            if self._closed.wait(wait) or self._closed.wait(self._rate.wait(len(job.questions))):
                break
            asked += len(job.questions)
            try:
                answers = tuple(self._endpoint.ask(job.questions, job.model_version))
            except ProbeError as error:
                failures.append("endpoint")
                problem = str(error)
            except Exception as error:  # noqa: BLE001 - a defect here must not end the agent, nor this thread
                failures.append("defect")
                problem = f"{type(error).__name__}: {error}"
            else:
                if len(answers) == len(job.questions):
                    return Outcome(job.purpose, job.model_version, answers, None, asked, tuple(failures))
                failures.append("incomplete")
                problem = f"{len(answers)} answers to {len(job.questions)} questions"
        return Outcome(job.purpose, job.model_version, (), problem, asked, tuple(failures))
