"""KServe's server with its payload logger pointed at the agent: what the agent counts is what the client saw."""

from __future__ import annotations

import json
import random
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.agent import Agent, Tally, spam_reference, wine_reference
from tests.system.programs import fetch, wait_for
from tests.system.runtimes.wine import Wine
from tests.system.servers import asked, messages, start_kserve, start_payload_logger, wines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.servers import Server

pytestmark = [pytest.mark.system, pytest.mark.slow]

PAIR = 10.0
"""How long a request waits for its response: longer than a busy machine keeps them apart."""


@pytest.fixture(scope="module")
def kserve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server of KServe for all tests of this module."""
    server = start_kserve(tmp_path_factory.mktemp("kserve"))
    yield server
    server.stop()


class Watched:
    """The agent, with the wines and the filter's v1 each behind a payload logger."""

    def __init__(self, kserve: Server, models: dict[str, Path], folder: Path) -> None:
        told = {"kind": "kserve", "version_annotation": "example.com/model-version", "pair_seconds": PAIR}
        model = Wine()
        wine = {**told, "features": model.features, "prediction": "label", "probabilities": "scores"}
        spam = {
            **told,
            "text": "text",
            "model": "sms-spam",
            "classes": ["ham", "spam"],
            "prediction": "label",
            "probabilities": "probabilities",
        }
        sources = [
            {"kind": "http", "path": "/v1/predictions", "format": wine},
            {"kind": "http", "path": "/v1/texts", "format": spam},
        ]
        self.agent = Agent(folder, models, sources).start()
        self.loggers: list[Server] = []
        try:
            for path, service in (("/v1/predictions", "wine"), ("/v1/texts", "sms-spam-v1")):
                sink = f"http://{self.agent.address}{path}"
                self.loggers.append(start_payload_logger(folder, kserve, sink, service))
        except BaseException:
            self.close()
            raise
        self.wine_url = f"{self.loggers[0].url}/v1/models/wine:predict"
        self.spam_url = f"{self.loggers[1].url}/v2/models/sms-spam-v1/infer"
        self.tallies = {"wine": Tally(), "sms-spam": Tally()}

    def ask_wines(self, bodies: list[dict[str, Any]], ids: list[str] | None = None) -> None:
        """Post bodies of rows, under ids of the client's own if given."""
        for status, answer in asked(self.wine_url, bodies, [{"Ce-Id": one} for one in ids or ()]):
            assert status == 200, answer
            for one in answer["predictions"]:
                self.tallies["wine"].add(one["label"], max(one["scores"].values()))

    def ask_texts(self, texts: list[str]) -> None:
        """Post each text alone."""
        bodies = [{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}]} for text in texts]
        for status, answer in asked(self.spam_url, bodies):
            assert status == 200, answer
            outputs = {output["name"]: output["data"] for output in answer["outputs"]}
            self.tallies["sms-spam"].add(outputs["label"][0], max(outputs["probabilities"]))

    def delivered(self) -> dict[str, int]:
        """Wait until the loggers have posted all: their counts."""

        def look() -> list[dict[str, int]] | None:
            found = [json.loads(fetch(logger.url)) for logger in self.loggers]
            return found if all(one["queued"] == one["delivered"] + one["lost"] for one in found) else None

        counts: list[dict[str, int]] = wait_for("all posted", look, self.agent.told)
        return {name: sum(one[name] for one in counts) for name in counts[0]}

    def agree(self) -> dict[tuple[str, str], float]:
        """Both models were counted as the client saw them: what was rejected, by source and reason."""
        for model, tally in self.tallies.items():
            if tally.count:
                self.agent.agrees(model, "v1", tally)
        return {
            (dict(labels)["source"], dict(labels)["reason"]): number
            for (name, labels), number in self.agent.series().items()
            if name == "poisonwatch_records_rejected_total" and number
        }

    def close(self) -> None:
        """Stop the loggers and the agent."""
        for logger in self.loggers:
            logger.stop()
        self.agent.close()


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What both models answer."""
    folder = tmp_path_factory.mktemp("references")
    return {"wine": wine_reference(folder), "sms-spam": spam_reference(folder)}


@pytest.fixture
def watched(kserve: Server, references: dict[str, Path], tmp_path: Path) -> Iterator[Watched]:
    """A new agent."""
    found = Watched(kserve, references, tmp_path)
    yield found
    found.close()


def test_thousands_of_predictions_are_counted_as_the_client_saw_them(watched: Watched) -> None:
    """Protocol v1 with rows, alone and by several, and v2 with texts; requests and responses apart and out of order."""
    rows = wines(2400, seed=2)
    watched.ask_wines([{"instances": [row]} for row in rows[:1800]])
    watched.ask_wines([{"instances": rows[first : first + 4]} for first in range(1800, 2400, 4)])
    watched.ask_texts([message.text for message in messages().verified[:1000]])
    counts = watched.delivered()
    assert (counts["queued"], counts["lost"]) == (2 * (1800 + 150 + 1000), 0)
    assert counts["response_first"] > 100
    assert watched.agree() == {}
    assert set(watched.tallies["wine"].classes) == {"cultivar-0", "cultivar-1", "cultivar-2"}
    assert set(watched.tallies["sms-spam"].classes) == {"ham", "spam"}


def test_a_request_that_failed_is_no_prediction_and_is_told_of(watched: Watched) -> None:
    """Only status 200 is logged as a response: the request waits for it in vain, and is counted as unpaired."""
    bad = asked(watched.wine_url, [{"instances": ["no row"]}] * 20)
    assert {status for status, _ in bad} == {500}
    watched.ask_wines([{"instances": [row]} for row in wines(300, seed=3)])
    assert watched.delivered()["queued"] == 20 + 600
    assert watched.agree() == {}
    # Time passes for what waits when something comes.
    time.sleep(PAIR + 0.5)
    watched.ask_wines([{"instances": [row]} for row in wines(1, seed=4)])
    assert watched.delivered()["lost"] == 0
    assert watched.agree() == {("/v1/predictions", "unpaired_request"): 20}


def test_an_id_of_the_clients_own_choice_hides_no_prediction(watched: Watched) -> None:
    """KServe's logger takes the id that the client sends: a hundred requests under one are a hundred predictions."""
    rng = random.Random(4)
    ids = ["mine"] * 100 + [str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(200)]
    rng.shuffle(ids)
    watched.ask_wines([{"instances": [row]} for row in wines(300, seed=5)], ids)
    assert watched.delivered()["queued"] == 600
    series = watched.agent.judged("wine", 300)
    told = {
        dict(labels)["class"]: number
        for (name, labels), number in series.items()
        if name == "poisonwatch_predictions_total" and ("model", "wine") in labels and number
    }
    assert told == dict(watched.tallies["wine"].classes), watched.agent.told()
