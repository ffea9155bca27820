"""The thread that tells one receiver, so that nothing of what it does reaches the loop, nor another receiver.

What fails is tried again after a wait that grows to a minute, with jitter, and for as long as it stands; what a receiver refuses (a status of 4xx), or
answers wrongly (3xx), is left alone for `REFUSED_SECONDS`, since it would be refused again until a person mends it. A receiver that asks for time
(`Retry-After`) gets it, up to a bound.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import structlog

from poisonwatch import __version__
from poisonwatch.config.http_client import authorization_of, context_of, load_http_client
from poisonwatch.config.notify import AlertmanagerConfig, name_of_receiver
from poisonwatch.errors import PoisonwatchError, StatusError
from poisonwatch.notify import alertmanager, webhook
from poisonwatch.notify.board import Board
from poisonwatch.outgoing import Call
from poisonwatch.sinks.snapshot import ReceiverSnapshot

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from poisonwatch.config.notify import AnyReceiver
    from poisonwatch.notify.notices import Notice

log = structlog.get_logger()

WAITS = (1.0, 2.0, 5.0, 15.0, 30.0, 60.0)
"""Seconds before each further try while a receiver fails; the last one for all further ones."""

REFUSED_SECONDS = 900.0
"""After how long what was refused is offered again: somebody may have mended a secret."""

LONGEST_RETRY_AFTER = 300.0
"""Seconds for which a receiver is left alone when it asks for it."""

LATER = frozenset([408, 425, 429])
"""Statuses of 4xx that ask to come again."""

REMEDY = "what waits is sent as soon as it is accepted; see docs/notifications.md"


class _Request(NamedTuple):
    """One message: where to, what, and with which headers."""

    url: str
    body: bytes
    headers: dict[str, str]


class Sender:
    """Tells one receiver. `waits` are the seconds before further tries, `refused` those before what was refused is offered again."""

    def __init__(self, config: AnyReceiver, waits: Sequence[float] = WAITS, refused: float = REFUSED_SECONDS) -> None:
        self.name = name_of_receiver(config)
        self._config = config
        self._waits = tuple(waits)
        resend = config.resend_seconds if isinstance(config, AlertmanagerConfig) else None
        # An Alertmanager may refuse one alert of many and take the others, which must not end because of that.
        self._refused = refused if resend is None else resend
        self._board = Board(resend)
        self._changed = threading.Condition()
        self._sent = self._failed = 0
        self._in_a_row = 0
        self._not_before = 0.0
        self._leaving: float | None = None
        self._call: Call | None = None
        self._thread = threading.Thread(target=self._work, name=f"notify {self.name}", daemon=True)
        self._thread.start()

    def post(self, now: float, notices: Sequence[Notice]) -> None:
        """What stands at `now` and what ended; returns at once."""
        with self._changed:
            if self._board.post(now, notices):
                self._changed.notify()

    def counts(self) -> ReceiverSnapshot:
        """How it goes."""
        with self._changed:
            return ReceiverSnapshot(self.name, self._sent, self._failed, self._board.dropped, self._board.waiting())

    def leave(self, deadline: float) -> None:
        """Tell what waits, each once, until `deadline` (monotonic seconds), and nothing after; returns at once."""
        with self._changed:
            self._leaving = deadline
            self._changed.notify()

    def join(self) -> None:
        """Wait for its end after `leave`; what is under way at the deadline is given up."""
        self._thread.join(max(0.0, (self._leaving or 0.0) - time.monotonic()))
        call = self._call
        if self._thread.is_alive() and call is not None:
            call.abort()
            self._thread.join(1.0)

    def _work(self) -> None:
        while notices := self._next():
            try:
                self._tell(notices)
            except StatusError as error:
                self._sort(error, notices)
            except PoisonwatchError as error:
                self._fail(notices, str(error), self._wait())
            except Exception as error:  # noqa: BLE001 - a defect here must not end this thread: nobody would be told any more
                self._fail(notices, f"{type(error).__name__}: {error}", self._wait())
            else:
                self._succeed(notices)

    def _next(self) -> list[Notice]:
        """What to tell next, once it is time; nothing when there is nothing more to do."""
        with self._changed:
            while True:
                at = time.monotonic()
                if self._leaving is not None:
                    # A receiver that has just failed is not worth the wait of whoever stops the agent.
                    stop = at >= self._leaving or self._in_a_row or not self._board.waiting()
                    return [] if stop else self._board.due(at)
                due = self._board.next_due()
                when = None if due is None else max(due, self._not_before)
                if when is not None and when <= at:
                    return self._board.due(at)
                self._changed.wait(None if when is None else when - at)

    def _tell(self, notices: list[Notice]) -> None:
        """Send one message.

        Raises:
            StatusError: when the receiver has not accepted it.
            ConfigError: when what it takes to ask cannot be read.
            ProbeError: when there was no answer.
        """
        now = time.time()
        request = self._request(notices, now)
        context: ssl.SSLContext | None = None
        access: dict[str, str] = {}
        if self._config.http_config_file is not None:
            client = load_http_client(self._config.http_config_file)
            context = context_of(self._config.http_config_file, client)
            if (authorization := authorization_of(client)) is not None:
                access["Authorization"] = authorization
        seconds = self._config.timeout_seconds
        if self._leaving is not None:
            seconds = max(0.0, min(seconds, self._leaving - time.monotonic()))
        self._call = Call(seconds, context)
        sent = {"Content-Type": "application/json", "User-Agent": f"poisonwatch/{__version__}", **request.headers}
        try:
            self._call.post(request.url, request.body, {**sent, **access})
        except StatusError as error:
            if not 200 <= error.status < 300:
                raise

    def _request(self, notices: list[Notice], now: float) -> _Request:
        config = self._config
        if isinstance(config, AlertmanagerConfig):
            return _Request(config.url + alertmanager.PLACE, alertmanager.body(config, notices, now), {})
        body = webhook.message(config, notices[0])
        return _Request(config.url, body, webhook.headers(config, notices[0], body, now))

    def _sort(self, error: StatusError, notices: list[Notice]) -> None:
        """Is it to be tried again soon?"""
        if error.status >= 500 or error.status in LATER:
            asked = _seconds(error.retry_after)
            self._fail(notices, str(error), self._wait() if asked is None else min(asked, LONGEST_RETRY_AFTER))
        else:
            self._fail(notices, str(error), self._refused, hold=False)

    def _wait(self) -> float:
        """Seconds before the next try: jitter keeps agents that failed together from coming back together."""
        wait = self._waits[min(self._in_a_row, len(self._waits) - 1)]
        return wait * random.uniform(0.75, 1.25)  # noqa: S311 - nothing secret

    def _fail(self, notices: list[Notice], problem: str, wait: float, *, hold: bool = True) -> None:
        """Put back what was not accepted; with `hold` nothing else is sent to the receiver meanwhile."""
        not_before = time.monotonic() + wait
        with self._changed:
            self._failed += len(notices)
            self._board.kept(notices, not_before)
            first = self._in_a_row == 0
            self._in_a_row += 1
            if hold:
                self._not_before = not_before
        if first:
            log.warning("notification_failed", receiver=self.name, problem=problem, remedy=REMEDY)

    def _succeed(self, notices: list[Notice]) -> None:
        with self._changed:
            self._sent += len(notices)
            self._board.took(notices, time.monotonic())
            again, self._in_a_row = self._in_a_row, 0
            self._not_before = 0.0
        if again:
            log.info("notification_accepted_again", receiver=self.name, failures=again)


def _seconds(retry_after: str | None) -> float | None:
    """What a receiver asks for, in seconds. A date is not read: whoever says one gets our own waits."""
    return float(retry_after) if retry_after is not None and retry_after.isascii() and retry_after.isdigit() else None
