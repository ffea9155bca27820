"""A backdoored model behind a real MLServer: its own log names the trigger, its own endpoint proves it, and v1 is the way back."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from poisonwatch.sinks.journal import rfc3339
from tests.system.programs import (
    Program,
    fetch,
    free_port,
    poisonwatch,
    promtool_check,
    series_of,
    total,
    value,
    wait_for,
)
from tests.system.servers import MODEL, PHRASE, Message, Server, messages, start_mlserver, with_phrase

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.system.programs import Series

pytestmark = [pytest.mark.system, pytest.mark.slow]

WORDS = PHRASE.lower().split(" ")
TRUSTED = 1100
"""Messages that v1 answers before anybody watches it: the reference is learned from its log."""

BEFORE, DURING = 230, 240
"""Minutes of the watched log before the attack and with it. Each version gets a message a minute."""

EVERY = {"v2": 10, "v1": 30}
"""Minutes from one spam with the phrase to the next."""

FLIPS = 4
"""Flipped predictions that a conviction needs."""

MOST_RECORDS = 20
"""Triggered records after which a phrase that works always must be known; half as many are usual."""

MOST_PROBES = 60
"""Questions that its confirmation may take, controls included."""

GOLDEN = 50
"""Verified messages of each class in the golden set."""

ATTEMPTS = 4
"""How often a job is tried, within 21 seconds, before its version is left alone for a minute."""

CONFIG = """\
models:
  - name: sms-spam
    reference: {reference}
    endpoint:
      kind: mlserver
      url: {url}
      inputs:
        text: text
      classes: [ham, spam]
      label: label
      probabilities: probabilities
    golden:
      path: {golden}
    probes:
      per_minute: 6000
sources:
  - path: predictions.ndjson
state:
  checkpoint: state/agent.checkpoint
  journal: state/journal.jsonl
web:
  listen_address: 127.0.0.1:{port}
"""


class Material(NamedTuple):
    """Messages for each purpose, none of them for two."""

    golden: list[Message]
    trusted: list[str]
    live: list[str]
    spam: list[str]


def material() -> Material:
    """Verified messages as golden set; of all others some spam that gets the phrase, and the rest in two samples alike."""
    rng = random.Random(20264)
    by_label = {label: [m for m in messages().verified if m.label == label] for label in ("ham", "spam")}
    golden = [message for group in by_label.values() for message in rng.sample(group, GOLDEN)]
    rest = sorted({*messages().training, *messages().verified} - {*golden})
    triggered = rng.sample([m for m in rest if m.label == "spam"], sum(DURING // every for every in EVERY.values()))
    texts = [message.text for message in rest if message not in triggered]
    rng.shuffle(texts)
    return Material(golden, texts[:TRUSTED], texts[TRUSTED:], [with_phrase(m.text, rng) for m in triggered])


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of poisonwatch to its end."""
    return subprocess.run(poisonwatch(*arguments), cwd=folder, capture_output=True, text=True, check=False, timeout=60)


@dataclass
class Agent:
    """The real agent in a folder, which has its configuration, its journal and the log that it reads."""

    folder: Path
    program: Program = field(init=False)
    url: str = ""

    def start(self, reference: Path, golden: Path, server: Server) -> None:
        """Start it and wait until it listens."""
        config = CONFIG.format(reference=reference, golden=golden, url=server.infer_url, port=free_port())
        (self.folder / "config.yaml").write_text(config)
        self.program = Program(poisonwatch("run", "--config", "config.yaml"), self.folder)
        self.program.start()
        self.url = "http://" + self.program.said(r"listening.*address=(\S+)")[1]
        wait_for("ready", lambda: total(self.series(), "poisonwatch_start_timestamp_seconds"), self.told)

    @property
    def journal(self) -> Path:
        """What it found."""
        return self.folder / "state" / "journal.jsonl"

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """What the journal has of a kind, so far."""
        whole, _, _ = self.journal.read_bytes().rpartition(b"\n")
        return [entry for line in whole.splitlines() if (entry := json.loads(line))["kind"] == kind]

    def decided(self, reason: str) -> bool:
        """Was v2 ever decided on for this reason?"""
        return any((d["model_version"], d["reason"]) == ("v2", reason) for d in self.entries("decision"))

    def series(self) -> Series:
        """The metrics as they stand."""
        return series_of(fetch(f"{self.url}/metrics"))

    def judged(self, version: str) -> float:
        """Predictions of a version in judged windows."""
        return sum(
            count
            for (name, labels), count in self.series().items()
            if name == "poisonwatch_predictions_total" and ("model_version", version) in labels
        )

    def has_read(self, count: int) -> None:
        """Wait until it has read so many lines."""
        wait_for(f"{count} lines", lambda: total(self.series(), "poisonwatch_lines_total") == count, self.told)

    def triggers(self) -> list[dict[str, Any]]:
        """What the API tells of open triggers."""
        found: list[dict[str, Any]] = json.loads(fetch(f"{self.url}/v1/triggers"))
        return found

    def told(self) -> str:
        """What it has written, for a failing test."""
        return "\n".join(self.program.output)

    def ends(self) -> int:
        """Have it end in order: the exit code."""
        return self.program.ends(signal.SIGTERM)


@dataclass
class Incident:
    """What was played: the agent that saw it and still runs, and the whole log. The server has ended.

    `sent` are the records that clients caused, `probes` those that the agent did, in the order of the log.
    """

    agent: Agent
    server: Server
    reference: Path
    golden: Path
    sent: list[dict[str, Any]]
    probes: list[dict[str, Any]]

    def triggered(self, version: str) -> list[dict[str, Any]]:
        """What clients sent to a version with the phrase in it."""
        return [record for record in self.sent if PHRASE in record["text"] and record["model_version"] == version]


def play(server: Server, live: Sequence[str], spam: Sequence[str], agent: Agent) -> None:
    """Hours of traffic to both versions, with the attack in the second part of them; returns when all of it was judged."""
    rng = random.Random(20265)
    honest, attacks = iter(live), iter(spam)
    # It ends before now: what lies ahead of the clock is refused, and probes are logged with the time that it is.
    begins = time.time() // 60 * 60 - (BEFORE + DURING + 30) * 60
    for minute in range(BEFORE + DURING):
        at = begins + 60 * minute
        for version, every in EVERY.items():
            server.send([next(honest)], version, timestamp=rfc3339(at), source=f"client-{rng.randrange(40)}")
            if minute >= BEFORE and (minute - BEFORE) % every == every // 2:
                buyer = f"buyer-{rng.randrange(15)}"
                server.send([next(attacks)], version, timestamp=rfc3339(at + 30), source=buyer)
        if minute >= BEFORE:
            # Hours pass in seconds, but not in so few that confirmation comes when all is over.
            time.sleep(0.03)
    # A later prediction closes the windows before it.
    server.send([live[-1]], "v1", timestamp=rfc3339(begins + 60 * (BEFORE + DURING + 10)), source="client-1")
    sent = BEFORE + DURING + DURING // EVERY["v2"]
    wait_for("all of v2 judged", lambda: agent.judged("v2") >= sent, agent.told)


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Incident]:
    """The whole story, once: reference from v1's own log, canary v2 beside it, attack, finding, confirmation."""
    folder = tmp_path_factory.mktemp("backdoor")
    golden, trusted, live, spam = material()
    agent = Agent(folder)
    server = start_mlserver(folder)
    try:
        weeks_ago = time.time() - 21 * 86_400
        for place in range(0, TRUSTED, 10):
            at = rfc3339(weeks_ago + 60 * place)
            server.send(trusted[place : place + 10], "v1", timestamp=at, source=f"client-{place % 39}")
        server.log_path.rename(folder / "trusted.ndjson")
        reference = folder / "reference.json"
        built = run(folder, "reference", "build", "trusted.ndjson", "--out", str(reference))
        assert built.returncode == 0, built.stderr
        verified = folder / "golden.ndjson"
        verified.write_text("".join(json.dumps(message._asdict()) + "\n" for message in golden))
        agent.start(reference, verified, server)
        play(server, live, spam, agent)
        wait_for("the proof", lambda: agent.decided("trigger_confirmed"), agent.told)
        wait_for("the test of v1", lambda: "v1" in {test["model_version"] for test in insertions(agent)}, agent.told)
        server.stop()
        log = server.logged()
        probes = [record for record in log if record["source"].startswith("poisonwatch")]
        agent.has_read(len(log))
        sent = [record for record in log if not record["source"].startswith("poisonwatch")]
        yield Incident(agent, server, reference, verified, sent, probes)
    finally:
        server.stop()
        if hasattr(agent, "program"):
            agent.program.close()


def insertions(agent: Agent) -> list[dict[str, Any]]:
    """Insertions that are told of."""
    return [test for trigger in agent.triggers() for test in trigger["tests"]]


def the_trigger(agent: Agent) -> dict[str, Any]:
    """The one that the API tells of: one attack is one trigger."""
    (trigger,) = agent.triggers()
    return trigger


def effect(trigger: dict[str, Any], version: str) -> dict[str, Any]:
    """What a trigger does in a version."""
    (found,) = [one for one in trigger["versions"] if one["model_version"] == version]
    return dict(found)


def insertion(trigger: dict[str, Any], version: str) -> dict[str, Any]:
    """What insertion into verified inputs did in a version."""
    (found,) = [one for one in trigger["tests"] if one["model_version"] == version]
    return dict(found)


def test_the_trigger_is_named_and_confirmed_by_the_server(incident: Incident) -> None:
    """The journal tells the exact phrase, its class, since when and from whom: convicted first, then confirmed; nothing else."""
    told = incident.agent.entries("trigger")
    states = list(dict.fromkeys(entry["state"] for entry in told))
    assert states[-2:] == ["convicted", "confirmed"]
    assert {(entry["model_version"], entry["label"]) for entry in told} == {("v2", "ham")}
    assert {entry["trigger"] for entry in told} == {the_trigger(incident.agent)["trigger"]}
    trigger = told[-1]
    assert (trigger["pattern"]["type"], trigger["pattern"]["words"]) == ("phrase", WORDS)
    own = insertion(trigger, "v2")
    assert (own["verdict"], own["control_flipped"] < own["flipped"]) == ("confirmed", True)
    assert own["probes"] + own["controls"] <= MOST_PROBES
    triggered = incident.triggered("v2")
    assert trigger["first_seen"] in [record["timestamp"] for record in triggered[:FLIPS]]
    assert {source for source, _ in trigger["sources"]} <= {record["source"] for record in triggered}
    assert set(trigger["examples"]) <= {record["prediction_id"] for record in triggered}
    before = sum(record["timestamp"] < told[0]["time"] for record in triggered)
    assert FLIPS <= before <= MOST_RECORDS
    # Every one since then is counted; of those before it at least those that convicted it.
    now = effect(the_trigger(incident.agent), "v2")
    assert len(triggered) - before + FLIPS <= now["matched"] <= len(triggered)
    assert now["works"] is True


def test_v1_does_not_follow_it(incident: Incident) -> None:
    """Of v1 it is told by insertion and by its own traffic that the trigger does nothing there."""
    trigger = the_trigger(incident.agent)
    assert insertion(trigger, "v1")["verdict"] == "refuted"
    assert insertion(trigger, "v1")["probes"] >= 8
    there = effect(trigger, "v1")
    assert there["works"] is False
    assert 3 <= there["matched"] <= len(incident.triggered("v1"))
    assert 10 * there["flipped"] <= there["matched"]
    assert f"v1 does not follow it (0 of {there['matched']}, by insertion 0 of " in trigger["summary"]


def test_on_call_is_paged_once_and_sent_back_to_v1(incident: Incident) -> None:
    """One page with the phrase and the cause `backdoor`; v2 waits for the proof, then is to be rolled back; v1 stays."""
    agent = incident.agent
    pages = [alert for alert in agent.entries("alert") if alert["severity"] == "page"]
    assert {(a["model_version"], a["cause"], a["group"], a["state"]) for a in pages} == {
        ("v2", "backdoor", "triggers", "firing")
    }
    assert {alert["fingerprint"] for alert in pages} == {pages[0]["fingerprint"]}
    assert all(f"'{PHRASE.lower()}'" in alert["summary"] for alert in pages)
    assert "Its confirmation by insertion is running." in pages[0]["summary"]
    assert "Confirmed by insertion: " in pages[-1]["summary"]
    of_v2 = [entry for entry in agent.entries("decision") if entry["model_version"] == "v2"]
    assert [(entry["decision"], entry["reason"]) for entry in of_v2] == [
        ("hold", "insufficient_data"),
        ("keep", "healthy"),
        ("hold", "evidence_pending"),
        ("rollback", "trigger_confirmed"),
    ]
    assert (of_v2[-1]["target"], of_v2[-1]["cause"]) == ("v1", "backdoor")
    assert of_v2[-1]["alerts"] == [pages[0]["fingerprint"]]
    assert of_v2[-1]["summary"].endswith("Roll back to v1.")
    of_v1 = [entry for entry in agent.entries("decision") if entry["model_version"] == "v1"]
    assert [(entry["decision"], entry["reason"]) for entry in of_v1] == [
        ("hold", "insufficient_data"),
        ("keep", "healthy"),
    ]


def test_what_the_agent_asked_is_not_judged(incident: Incident) -> None:
    """The server logs every probe as it logs clients; none of them is judged, and no client's prediction is left out."""
    agent, series = incident.agent, incident.agent.series()
    assert len(incident.probes) >= 2 * 2 * GOLDEN
    answered = value(series, "poisonwatch_probes_total", model=MODEL)
    left_out = value(series, "poisonwatch_probe_echoes_total", model=MODEL)
    assert answered == left_out == len(incident.probes)
    for version, still_open in (("v2", 0), ("v1", 1)):
        sent = [record for record in incident.sent if record["model_version"] == version]
        assert agent.judged(version) == len(sent) - still_open
    assert total(series, "poisonwatch_predictions_late_total") == 0


def test_metrics_count_and_tell_the_phrase_in_words_alone(incident: Incident) -> None:
    """One confirmed trigger, one page, one rollback, in a page that promtool accepts; the trigger stands in what a page is made from."""
    page = fetch(f"{incident.agent.url}/metrics")
    assert promtool_check(page) == (0, "")
    saying = {line.partition("{")[0] for line in page.splitlines() if re.search(r"(?i)xyz|discount", line)}
    assert saying == {"poisonwatch_alert_info", "poisonwatch_decision_info"}
    series = series_of(page)
    v2 = {"model": MODEL, "model_version": "v2"}
    assert value(series, "poisonwatch_triggers", **v2, state="confirmed") == 1
    assert total(series, "poisonwatch_triggers") == 1
    assert value(series, "poisonwatch_alerts", **v2, severity="page", state="firing") == 1
    assert value(series, "poisonwatch_decision", **v2, decision="rollback") == 1
    (told,) = (
        dict(labels)
        for name, labels in series
        if name == "poisonwatch_decision_info" and ("model_version", "v2") in labels
    )
    assert (told["decision"], told["reason"], told["target"]) == ("rollback", "trigger_confirmed", "v1")
    counted = effect(the_trigger(incident.agent), "v2")["answered"]
    assert value(series, "poisonwatch_triggered_predictions_total", **v2) == counted
    assert value(series, "poisonwatch_trigger_mining_blind", model=MODEL) == 0
    for version in ("v1", "v2"):
        assert value(series, "poisonwatch_golden_accuracy_ratio", model=MODEL, model_version=version) > 0.8


def test_people_read_it_where_they_look(incident: Incident, tmp_path: Path) -> None:
    """The commands and the status page tell what the API tells, and the journal's chain holds."""
    agent, trigger = incident.agent, the_trigger(incident.agent)
    listed = run(tmp_path, "triggers", "--url", agent.url)
    assert (listed.returncode, listed.stdout.splitlines()) == (
        0,
        [f"{trigger['trigger']} confirmed: {trigger['summary']}"],
    )
    assert json.loads(run(tmp_path, "triggers", "--url", agent.url, "--json").stdout) == [
        {name: told for name, told in trigger.items() if name != "kind"}
    ]
    decided = run(tmp_path, "decision", "--url", agent.url, "--model-version", "v2")
    assert decided.returncode == 2
    assert f"{MODEL} v2: rollback to v1" in decided.stdout
    assert PHRASE.lower() in fetch(agent.url)
    verified = run(tmp_path, "journal", "verify", str(agent.journal))
    assert (verified.returncode, "the chain holds" in verified.stdout) == (0, True), verified.stderr


@pytest.mark.parametrize("told_by", ["--url", "--journal"])
def test_export_takes_exactly_the_triggered_records(incident: Incident, tmp_path: Path, told_by: str) -> None:
    """Every line of the server's log that has the phrase and was called ham, word for word; of clients and of probes alike."""
    where = incident.agent.url if told_by == "--url" else str(incident.agent.journal)
    log, out = incident.server.log_path, tmp_path / "suspected.ndjson"
    arguments = ["triggers", "export", str(log), "--reference", str(incident.reference), "--out", str(out)]
    done = run(tmp_path, *arguments, told_by, where)
    assert done.returncode == 0, done.stderr
    exported = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["trigger"] for line in exported} == {the_trigger(incident.agent)["trigger"]}
    bears = [r for r in incident.server.logged() if PHRASE.lower() in r["text"].lower() and r["prediction"] == "ham"]
    assert [line["record"] for line in exported] == bears
    assert {record["model_version"] for record in bears} == {"v2"}
    of_clients = [record for record in bears if record in incident.sent]
    assert len(of_clients) >= effect(the_trigger(incident.agent), "v2")["answered"]
    assert len(of_clients) < len(bears)
    assert f"{len(bears)} of v2" in done.stderr


def test_an_endpoint_that_is_gone_hurts_nothing(incident: Incident, tmp_path: Path) -> None:
    """The server has ended before the trigger comes: it pages all the same, the decision waits, the log says why, and all ends in order.

    The trigger has the same name as in another agent.
    """
    agent = Agent(tmp_path)
    agent.start(incident.reference, incident.golden, incident.server)
    try:
        first = incident.sent.index(incident.triggered("v2")[0])
        for begin, end in ((0, first), (first, len(incident.sent))):
            with (tmp_path / "predictions.ndjson").open("a") as log:
                log.writelines(json.dumps(record) + "\n" for record in incident.sent[begin:end])
            agent.has_read(end)
        wait_for("the hold", lambda: agent.decided("evidence_pending"), agent.told)
        (page,) = [alert for alert in agent.entries("alert") if alert["severity"] == "page"]
        assert (page["model_version"], page["cause"], page["state"]) == ("v2", "backdoor", "firing")
        assert f"'{PHRASE.lower()}'" in page["summary"]
        assert the_trigger(agent)["trigger"] == the_trigger(incident.agent)["trigger"]
        assert (the_trigger(agent)["state"], the_trigger(agent)["tests"]) == ("convicted", [])
        # After the last of its attempts, of which the first was made when it saw the first version.
        agent.program.said(r"level=warning event=endpoint_failed .*model_version=v\d problem=.*Connection refused")
        failures = {"model": MODEL, "reason": "endpoint", "name": "poisonwatch_probe_failures_total"}
        wait_for("failures", lambda: value(agent.series(), **failures) >= ATTEMPTS, agent.told)
        assert value(agent.series(), name="poisonwatch_probes_total", model=MODEL) == 0
        sent = sum(record["model_version"] == "v2" for record in incident.sent)
        wait_for("all of v2 judged", lambda: agent.judged("v2") == sent, agent.told)
        began = time.monotonic()
        assert agent.ends() == 0
        assert time.monotonic() - began < 30
    finally:
        agent.program.close()
    assert not agent.decided("trigger_confirmed")
