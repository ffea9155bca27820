"""Real receivers that hang, fail, refuse, lie, die and come back: each is told in the end, in order, and the loop never waits."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import ssl
import threading
import time
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from poisonwatch.config.notify import AlertmanagerConfig, WebhookConfig
from poisonwatch.notify.notices import closed
from poisonwatch.notify.notifier import Notifier
from poisonwatch.notify.sender import LONGEST_RETRY_AFTER, Sender
from poisonwatch.sinks.snapshot import ReceiverSnapshot
from tests.notify.receiving import OK, Came, Receiver, status
from tests.notify.standing import NOW, page, ticket
from tests.server.clients import lay_out
from tests.system.programs import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from poisonwatch.notify.notices import Notice

SECRET = bytes(range(32))
QUICK = (0.01, 0.02)
"""Seconds between tries: a test need not wait as long as a receiver needs."""


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file with the secret."""
    path = tmp_path / "secret"
    path.write_text(f"whsec_{base64.b64encode(SECRET).decode()}\n")
    return path


@contextmanager
def sending(config: WebhookConfig | AlertmanagerConfig, refused: float = 900.0) -> Iterator[Sender]:
    """A sender for as long as the block lasts."""
    sender = Sender(config, QUICK, refused)
    try:
        yield sender
    finally:
        sender.leave(time.monotonic())
        sender.join()


def webhook(url: str, secret: Path, **given: Any) -> WebhookConfig:
    """A webhook at this URL."""
    return WebhookConfig(kind="webhook", url=url, secret_file=secret, **given)


def settled(sender: Sender, **expected: int) -> ReceiverSnapshot:
    """Wait until the counts are these."""

    def look() -> ReceiverSnapshot | None:
        counts = sender.counts()
        return counts if counts._asdict().items() >= expected.items() else None

    counts: ReceiverSnapshot = wait_for(f"counts {expected}", look, lambda: str(sender.counts()))
    return counts


def verified(message: Came, key: bytes = SECRET) -> bool:
    """Check a message as a receiver does, by the words of the specification."""
    identity, at = message.headers["webhook-id"], message.headers["webhook-timestamp"]
    assert abs(time.time() - int(at)) < 300
    mac = hmac.new(key, f"{identity}.{at}.".encode() + message.body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(mac).decode()}" in message.headers["webhook-signature"].split(" ")


def test_a_message_arrives_signed(secret: Path) -> None:
    """A receiver that has the secret can tell that nobody else sent it, nor changed it; any 2xx is acceptance."""
    with Receiver(lambda _: status(204)) as receiver, sending(webhook(f"{receiver.url}/in?x=1", secret)) as sender:
        sender.post(NOW, [page()])
        counts = settled(sender, sent=1)
        (message,) = receiver.came
        assert message.path == "/in?x=1"
        assert message.headers["content-type"] == "application/json"
        assert message.headers["webhook-id"] == message.json["id"] == page().id
        assert verified(message)
        assert not verified(message._replace(body=message.body + b" "))
        assert not verified(message, bytes(32))
        assert counts == ReceiverSnapshot(receiver.url.removeprefix("http://"), 1, 0, 0, 0)


ANSWERS = {
    "error": status(500),
    "unavailable": status(503),
    "too many": status(429),
    "too early": status(425),
    "closed": b"",
    "garbage": b"SSH-2.0-OpenSSH\r\n",
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
}


@pytest.mark.parametrize("bad", ANSWERS.values(), ids=ANSWERS.keys())
def test_what_fails_is_tried_again_as_the_same_message(secret: Path, bad: bytes) -> None:
    """After failures the same message comes under the same id, so that whoever had it already can see that."""
    answers = [bad, bad, bad, OK]
    with Receiver(lambda _: answers.pop(0)) as receiver, sending(webhook(receiver.url, secret)) as sender:
        sender.post(NOW, [page()])
        settled(sender, sent=1, failed=3, waiting=0, dropped=0)
        assert len(receiver.came) == 4
        assert {(m.headers["webhook-id"], m.body) for m in receiver.came} == {(page().id, receiver.came[0].body)}
        assert all(map(verified, receiver.came))


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 301, 302, 308])
def test_what_is_refused_is_not_tried_again_soon(secret: Path, code: int) -> None:
    """What a receiver refuses, it is not asked again; other messages go on, and a redirect is not followed."""
    with Receiver(lambda _: OK) as elsewhere:
        answers = [status(code, f"Location: {elsewhere.url}"), OK]
        with Receiver(lambda _: answers.pop(0)) as receiver, sending(webhook(receiver.url, secret)) as sender:
            sender.post(NOW, [page()])
            settled(sender, failed=1, waiting=1)
            sender.post(NOW, [page(), ticket()])
            settled(sender, sent=1, failed=1, waiting=1)
            assert [m.json["data"]["name"] for m in receiver.came] == [page().name, ticket().name]
        assert elsewhere.came == []


def test_what_was_refused_is_offered_again_while_it_stands(secret: Path) -> None:
    """Somebody mends a secret: nobody has to start the agent again for the page to come."""
    answers = [status(401), status(401), OK]
    with Receiver(lambda _: answers.pop(0)) as receiver, sending(webhook(receiver.url, secret), 0.05) as sender:
        sender.post(NOW, [page()])
        settled(sender, sent=1, failed=2, waiting=0)


def test_a_receiver_that_asks_for_time_gets_it(secret: Path) -> None:
    """`Retry-After` is obeyed, for everything that waits."""
    answers = [status(429, "Retry-After: 1"), OK, OK]
    with Receiver(lambda _: answers.pop(0)) as receiver, sending(webhook(receiver.url, secret)) as sender:
        sender.post(NOW, [page()])
        settled(sender, failed=1)
        sender.post(NOW, [page(), ticket()])
        settled(sender, sent=2, failed=1)
        assert receiver.came[1].at - receiver.came[0].at >= 0.99


@pytest.mark.parametrize("asked", ["99999999", "-1", "soon", "Fri, 31 Dec 2055 23:59:59 GMT", "²"])
def test_a_receiver_cannot_ask_for_ever(secret: Path, asked: str) -> None:
    """A wait has a bound, and what is no number of seconds is not obeyed."""
    answers = [status(503, f"Retry-After: {asked}".encode().decode("latin-1")), OK]
    with Receiver(lambda _: answers.pop(0)) as receiver, sending(webhook(receiver.url, secret)) as sender:
        sender.post(NOW, [page()])
        settled(sender, failed=1)
        if asked == "99999999":
            time.sleep(0.1)
            assert sender.counts().sent == 0
            assert LONGEST_RETRY_AFTER < 3600
        else:
            settled(sender, sent=1)


def test_the_loop_never_waits(secret: Path) -> None:
    """While a receiver hangs, the loop says what stands at once, again and again; the other receiver hears of it; what waits is bounded."""
    with Receiver(lambda _: None) as hanging, Receiver() as well, ExitStack() as stack:
        notifier = Notifier([webhook(hanging.url, secret, timeout_seconds=60), webhook(well.url, secret)])
        stack.callback(notifier.close, 0.1)
        notifier.notify(NOW, [page()])
        hanging.has(1)
        began = time.monotonic()
        for turn in range(200):
            notifier.notify(NOW + turn, [ticket(f"v{number}", NOW + turn) for number in range(20)])
        # Far less than the 60 s for which a single exchange hangs.
        assert time.monotonic() - began < 30
        wait_for("the other has all", lambda: notifier.counts()[1].waiting == 0, lambda: str(notifier.counts()))
        stuck, other = notifier.counts()
        assert stuck.sent == 0
        assert stuck.waiting <= 21
        assert other.sent >= 21
        last = {
            m.json["data"]["model_version"]: m.json["timestamp"] for m in well.came if m.json["type"] == "alert.firing"
        }
        assert len({last[f"v{number}"] for number in range(20)}) == 1


def test_a_hanging_receiver_is_left_in_time(secret: Path) -> None:
    """An exchange has a deadline, after which it is tried again."""
    answers: list[bytes | None] = [None, OK]
    with (
        Receiver(lambda _: answers.pop(0)) as receiver,
        sending(webhook(receiver.url, secret, timeout_seconds=0.2)) as sender,
    ):
        sender.post(NOW, [page()])
        settled(sender, sent=1, failed=1)


def test_a_receiver_that_was_away_hears_the_newest(secret: Path) -> None:
    """A receiver dies and comes back: of each thing it is told the newest state only, under the right order of time."""
    with Receiver() as receiver:
        config = webhook(receiver.url, secret)
    with sending(config) as sender:
        sender.post(NOW, [page(time=NOW), ticket()])
        wait_for("tries", lambda: sender.counts().failed >= 2)
        assert sender.counts().waiting == 2
        sender.post(NOW + 1, [closed(page(time=NOW), NOW + 1, "moved"), ticket()])
        sender.post(NOW + 2, [page(time=NOW + 2), ticket()])
        with Receiver(port=receiver.port) as back:
            settled(sender, sent=2, waiting=0)
            assert sorted(m.headers["webhook-id"] for m in back.came) == sorted([page(time=NOW + 2).id, ticket().id])
            sender.post(NOW + 3, [ticket()])
            (end,) = back.has(3)[2:]
            assert (end.json["type"], end.json["data"]["name"]) == ("alert.resolved", page().name)


def test_states_come_in_order(secret: Path) -> None:
    """While a receiver fails now and then, each thing's states come in the order of time, the last one included."""
    failing = iter([status(500), OK, OK, status(503), b""] * 1000)
    with Receiver(lambda _: next(failing)) as receiver, sending(webhook(receiver.url, secret)) as sender:
        stands: list[Notice] = []
        for turn in range(1, 60):
            stands = [ticket(f"v{n}", NOW + turn) for n in range(4) if (turn + n) % 3]
            sender.post(NOW + turn, stands)
            if turn % 10 == 0:
                receiver.has(turn // 10)
        sender.post(NOW + 60, stands)
        settled(sender, waiting=0)
        for number in range(4):
            told = [m.json for m in receiver.came if m.json["data"]["model_version"] == f"v{number}"]
            times = [one["timestamp"] for one in told]
            assert times == sorted(times)
            standing = any(notice.model_version == f"v{number}" for notice in stands)
            assert told[-1]["type"] == ("alert.firing" if standing else "alert.resolved")


def test_what_waits_is_told_before_the_agent_ends(secret: Path) -> None:
    """Closing tells what waits, and never that anything ended; a receiver that hangs, or fails, does not hold it up."""
    with Receiver() as well, Receiver(lambda _: None) as hanging, Receiver(lambda _: status(500)) as failing:
        notifier = Notifier([webhook(one.url, secret, timeout_seconds=60) for one in (well, hanging, failing)])
        notifier.notify(NOW, [page(), *(ticket(f"v{number}") for number in range(30))])
        hanging.has(1)
        wait_for("a failure", lambda: notifier.counts()[2].failed)
        began = time.monotonic()
        notifier.close(0.5)
        assert time.monotonic() - began < 30
        assert [c.sent for c in notifier.counts()] == [31, 0, 0]
        assert {m.json["type"] for m in well.came} == {"alert.firing"}
        assert len(failing.came) == 1
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("notify ")]


def test_a_secret_that_is_missing_is_told_and_mended(secret: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be signed is not sent, and is as soon as the file is there: it is read anew each time."""
    text = secret.read_text()
    secret.unlink()
    with Receiver() as receiver, sending(webhook(receiver.url, secret)) as sender:
        sender.post(NOW, [page()])
        wait_for("tries", lambda: sender.counts().failed >= 2)
        assert receiver.came == []
        secret.write_text(text)
        settled(sender, sent=1)
    out = capsys.readouterr().out
    assert len(re.findall("notification_failed", out)) == 1
    assert "the secret cannot be read" in out
    assert "notification_accepted_again" in out


def test_a_protected_receiver(secret: Path, tmp_path: Path) -> None:
    """Password, CA and certificate are those of the file in the format of Prometheus' clients; without them nothing is told."""
    folder = tmp_path / "tls"
    lay_out(folder)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    tls.load_verify_locations(folder / "ca.crt")
    tls.verify_mode = ssl.CERT_REQUIRED
    access = tmp_path / "http.yml"
    access.write_text("tls_config: {ca_file: tls/ca.crt}\n")
    with (
        Receiver(tls=tls) as receiver,
        sending(webhook(receiver.url, secret, http_config_file=access)) as sender,
    ):
        sender.post(NOW, [page()])
        wait_for("tries", lambda: sender.counts().failed >= 1)
        access.write_text(
            "basic_auth: {username: agent, password: hush}\n"
            "tls_config: {ca_file: tls/ca.crt, cert_file: tls/tls.crt, key_file: tls/tls.key}\n"
        )
        settled(sender, sent=1)
        assert receiver.came[-1].headers["authorization"] == "Basic " + base64.b64encode(b"agent:hush").decode()


def test_a_defect_of_ours_does_not_end_the_telling(secret: Path) -> None:
    """A number that JSON has not, which is never to come, fails alone."""
    with Receiver() as receiver, sending(webhook(receiver.url, secret)) as sender:
        never = ticket("v9", float("inf"))
        sender.post(NOW, [never])
        wait_for("a failure", lambda: sender.counts().failed >= 1)
        sender.post(NOW, [never, page()])
        settled(sender, sent=1, waiting=1)


def test_an_alertmanager_is_told_again_and_again() -> None:
    """All that stands is pushed together every so many seconds; pages last for a day, tickets for minutes; what ended ends now, once."""
    with Receiver() as receiver:
        config = AlertmanagerConfig(
            kind="alertmanager", url=f"{receiver.url}/am/", resend_seconds=1.0, labels={"zone": "a"}
        )
        with sending(config) as sender:
            sender.post(NOW, [page(), ticket()])
            messages = receiver.has(2)
            assert messages[1].at - messages[0].at >= 0.9
            assert {m.path for m in messages} == {"/am/api/v2/alerts"}
            assert sender.counts().waiting == 0
            alerts = {one["labels"]["alertname"]: one for one in messages[1].json}
            assert set(alerts) == {"PoisonwatchRollbackRecommended", "PoisonwatchInputDrift"}
            lasts = {name: _seconds(one["endsAt"]) - time.time() for name, one in alerts.items()}
            assert 86000 < lasts["PoisonwatchRollbackRecommended"] <= 86401
            assert 200 < lasts["PoisonwatchInputDrift"] <= 301
            assert alerts["PoisonwatchInputDrift"]["labels"] == {
                "zone": "a",
                "alertname": "PoisonwatchInputDrift",
                "model": "mail",
                "model_version": "v2",
                "cause": "input_drift",
                "severity": "warning",
                "fingerprint": ticket().fingerprint,
            }
            count = len(receiver.came)
            sender.post(NOW + 5, [page()])
            receiver.has(count + 2)
            pushed = [{one["labels"]["alertname"]: one for one in m.json} for m in receiver.came[count:]]
            ends = [one["PoisonwatchInputDrift"] for one in pushed if "PoisonwatchInputDrift" in one]
            over = [one for one in ends if _seconds(one["endsAt"]) <= time.time()]
            assert len(over) == 1
            assert all("PoisonwatchRollbackRecommended" in one for one in pushed)


def test_an_alertmanager_that_refuses_one_alert_keeps_the_others() -> None:
    """It takes the good ones of a push that it answers with 400: they are told again before they end."""
    answers = iter([status(400), *[OK] * 1000])
    with Receiver(lambda _: next(answers)) as receiver:
        config = AlertmanagerConfig(kind="alertmanager", url=receiver.url, resend_seconds=1.0)
        with sending(config) as sender:
            sender.post(NOW, [page(), ticket()])
            settled(sender, sent=2, failed=2)


def _seconds(rfc3339: str) -> float:
    return datetime.fromisoformat(rfc3339).timestamp()
