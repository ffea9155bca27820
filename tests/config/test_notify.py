"""The configuration of receivers: what could tell somebody else, or could not be told apart, is refused with its remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from poisonwatch.config.notify import (
    AlertmanagerConfig,
    AnyReceiver,
    Receivers,
    WebhookConfig,
    name_of_receiver,
    rooted,
)

HOOK: dict[str, Any] = {"kind": "webhook", "url": "https://hooks.example.com/T0/secret", "secret_file": "secret"}
MANAGER: dict[str, Any] = {"kind": "alertmanager", "url": "http://alertmanager:9093/am/"}


def receiver(of: dict[str, Any], **keys: Any) -> AnyReceiver:
    """A receiver with these keys."""
    found: AnyReceiver = TypeAdapter(AnyReceiver).validate_python({**of, **keys})
    return found


def test_each_kind_is_read() -> None:
    """The defaults suit; what is named in metrics is the host, since a path may be a secret."""
    hook, manager = receiver(HOOK), receiver(MANAGER)
    assert isinstance(hook, WebhookConfig)
    assert isinstance(manager, AlertmanagerConfig)
    assert (manager.url, manager.resend_seconds) == ("http://alertmanager:9093/am", 60.0)
    assert [name_of_receiver(one) for one in (hook, manager)] == ["hooks.example.com", "alertmanager:9093"]
    assert name_of_receiver(receiver(HOOK, name="pager")) == "pager"


def test_what_is_dumped_is_read_again() -> None:
    """Each kind survives being written out."""
    for of in (HOOK, MANAGER):
        given = receiver(of, labels={"cluster": "eu"}, runbooks_url="https://r/", http_config_file="http.yml")
        assert receiver(given.model_dump(mode="json")) == given


def test_paths_start_from_the_folder_of_the_file() -> None:
    """Relative ones are put behind it, others stay."""
    there = rooted(receiver(HOOK, http_config_file="/etc/http.yml"), Path("/conf"))
    assert isinstance(there, WebhookConfig)
    assert (there.secret_file, there.http_config_file) == (Path("/conf/secret"), Path("/etc/http.yml"))
    assert rooted(receiver(MANAGER), Path("/conf")) == receiver(MANAGER)


@pytest.mark.parametrize(
    ("of", "keys", "remedy"),
    [
        (HOOK, {"url": "https://user:pass@hooks.example.com/"}, "put them into the file that http_config_file names"),
        (HOOK, {"url": "https://hooks.example.com/{model}"}, "no placeholders"),
        (HOOK, {"url": "ftp://hooks.example.com/"}, "say it as http://HOST/PATH"),
        (HOOK, {"url": "https://[::1/"}, "Invalid IPv6 URL"),
        (MANAGER, {"url": "http://alertmanager:9093/?x=1"}, "no query"),
        (MANAGER, {"dashboards_url": "https://grafana/?orgId=1"}, "no query"),
        (MANAGER, {"labels": {"severity": "critical"}}, "severity is what we say: choose another name"),
        (MANAGER, {"labels": {"a-b": "c"}}, "should match pattern"),
        (MANAGER, {"secret_file": "secret"}, "Extra inputs"),
        (HOOK, {"secret_file": None}, "not a valid path"),
        (HOOK, {"name": "my\npager"}, "should match pattern"),
        (MANAGER, {"resend_seconds": 0}, "greater than or equal to 1"),
        ({}, {"kind": "pager"}, "'alertmanager', 'webhook'"),
    ],
)
def test_mistakes_are_refused(of: dict[str, Any], keys: dict[str, Any], remedy: str) -> None:
    """Each with what to do."""
    with pytest.raises(ValidationError) as raised:
        receiver(of, **keys)
    assert remedy in str(raised.value)


def test_receivers_have_names_of_their_own() -> None:
    """Two at one host cannot be told apart in metrics until one is named."""
    adapter: TypeAdapter[tuple[AnyReceiver, ...]] = TypeAdapter(Receivers)
    with pytest.raises(ValidationError, match=r"two receivers are called hooks.example.com: give each a `name`"):
        adapter.validate_python([HOOK, {**HOOK, "url": "https://hooks.example.com/other"}])
    assert len(adapter.validate_python([HOOK, {**HOOK, "name": "second"}, MANAGER])) == 3


@pytest.mark.parametrize("kind", [WebhookConfig, AlertmanagerConfig])
def test_every_key_is_described(kind: type[WebhookConfig | AlertmanagerConfig]) -> None:
    """docs/configuration.md is made from the descriptions."""
    assert [name for name, field in kind.model_fields.items() if not field.description] == []
