"""The signed message: signed as the specification says, and all that whoever is called needs is in it."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.config.notify import WebhookConfig
from poisonwatch.errors import ConfigError
from poisonwatch.judge.aftermath import RollbackState
from poisonwatch.notify.notices import closed, notices_of
from poisonwatch.notify.webhook import message, secrets_of, signatures
from tests.notify.standing import NOW, STORY, alert, decision, model, page, rollback, ticket

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def config(path: Path) -> WebhookConfig:
    """A webhook with everything."""
    return WebhookConfig(
        kind="webhook",
        url="https://hooks.example.com/x",
        secret_file=path,
        labels={"cluster": "eu-1"},
        runbooks_url="https://runbooks.example.com/",
        dashboards_url="https://grafana.example.com",
    )


def test_it_is_signed_as_the_specification_says(tmp_path: Path) -> None:
    """The published example of Standard Webhooks; with two secrets there are two signatures."""
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    example = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signatures(secrets_of(path), *example) == signature
    path.write_text(f"{OTHER}\n{SECRET}\n")
    both = signatures(secrets_of(path), *example).split()
    assert (len(both), both[1]) == (2, signature)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "whsec_",
        "whsec_c2hvcnQ=",
        "whsec_!!!!",
        SECRET.removeprefix("whsec_"),
        f"{SECRET}\n{OTHER}\n{SECRET}",
        f"{SECRET}\nsecret",
        "whsec_" + base64.b64encode(bytes(65)).decode(),
    ],
)
def test_what_is_no_secret_is_refused_and_not_told(tmp_path: Path, text: str) -> None:
    """A secret that is too short, or anything else, is an error that names the file and the remedy, and never what is in it."""
    path = tmp_path / "secret"
    path.write_text(text)
    with pytest.raises(ConfigError, match="a secret is whsec_ and base64 of 24 to 64 random bytes") as raised:
        secrets_of(path)
    assert str(raised.value).startswith(str(path))
    assert SECRET not in str(raised.value)
    assert "c2hvcnQ" not in str(raised.value)


@given(content=st.binary(max_size=300) | st.binary(max_size=70).map(lambda key: b"whsec_" + base64.b64encode(key)))
def test_any_file_is_a_secret_or_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever a file holds, nothing else than the documented error comes out."""
    path = tmp_path_factory.getbasetemp() / "secret"
    path.write_bytes(content)
    try:
        assert all(24 <= len(secret) <= 64 for secret in secrets_of(path))
    except ConfigError:
        return


def test_a_missing_secret_is_an_error(tmp_path: Path) -> None:
    """The file is named, with what the system says."""
    with pytest.raises(ConfigError, match=r"nothing: the secret cannot be read \(No such file"):
        secrets_of(tmp_path / "nothing")


def test_all_that_one_needs_is_in_it(tmp_path: Path) -> None:
    """Which model and version, what and since when, to where, what to do, where to click; the alert, the decision and its story beside."""
    standing = model([alert()], [decision()], [rollback(RollbackState.AWAITED, decided=NOW)])
    (notice,) = (one for one in notices_of(NOW, 0.0, [standing]) if one.ended is None)
    told = json.loads(message(config(tmp_path), notice))
    assert (told["version"], told["id"], told["type"]) == (1, notice.id, "alert.firing")
    assert told["timestamp"].endswith("Z")
    data = told["data"]
    assert data["name"] == "PoisonwatchRollbackRecommended"
    assert (data["model"], data["model_version"], data["severity"], data["cause"]) == (
        "mail",
        "v2",
        "critical",
        "backdoor",
    )
    assert data["labels"] == {"cluster": "eu-1"}
    assert data["runbook_url"] == "https://runbooks.example.com/PoisonwatchRollbackRecommended.md"
    assert data["dashboard_url"] == (
        "https://grafana.example.com/d/poisonwatch-model?var-model=mail&var-model_version=v2"
    )
    assert data["alert"]["summary"] == alert().summary
    assert data["decision"]["target"] == "v1"
    assert data["decision"]["story"]["target_because"] == STORY.target_because
    assert data["rollback"]["state"] == "awaited"
    assert {data[name]["time"][-1] for name in ("alert", "decision", "rollback")} == {"Z"}


def test_the_end_says_when_and_why(tmp_path: Path) -> None:
    """What ended has both its times, and another id."""
    notice = closed(page(), NOW, "Traffic left it.")
    told = json.loads(message(config(tmp_path), notice))
    assert told["type"] == "alert.resolved"
    assert told["timestamp"] == told["data"]["ended"] > told["data"]["began"]
    assert told["data"]["description"] == "Traffic left it."
    assert told["id"] != page().id


def test_the_body_is_the_same_at_each_try(tmp_path: Path) -> None:
    """Nothing in it depends on when it is sent: what a receiver took before it failed to say so is the same message."""
    first = message(config(tmp_path), ticket())
    time.sleep(0.002)
    assert message(config(tmp_path), ticket()) == first
