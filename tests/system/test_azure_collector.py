"""Azure's inference server with its data collector pointed at the agent: what the agent counts is what the client saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.agent import Agent, Tally, wine_reference
from tests.system.programs import free_port
from tests.system.runtimes.wine import Wine
from tests.system.servers import asked, start_azure, wines

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.slow]

PANDAS = 10
"""Decimals that the collector writes."""


def test_thousands_of_predictions_are_counted_as_the_client_saw_them(tmp_path: Path) -> None:
    """Calls of one row and of several; inputs and outputs in events of their own."""
    told = {
        "kind": "azure",
        "model": "wine",
        "model_version": "v1",
        "features": Wine().features,
        "prediction": "label",
        "confidence": "probability",
    }
    # The collector's path is fixed.
    source = {"kind": "http", "path": "/modeldata/log", "format": told}
    agent = Agent(tmp_path, {"wine": wine_reference(tmp_path)}, [source], port=free_port()).start()
    try:
        server = start_azure(tmp_path, agent.address)
        try:
            rows = wines(2400, seed=6)
            calls = [[row] for row in rows[:1600]] + [rows[first : first + 4] for first in range(1600, 2400, 4)]
            tally = Tally()
            for (status, answer), call in zip(
                asked(f"{server.url}/score", [{"data": call} for call in calls]), calls, strict=True
            ):
                assert status == 200, answer
                assert len(answer) == len(call)
                for one in answer:
                    tally.add(one["label"], round(one["probability"], PANDAS))
            assert set(tally.classes) == {"cultivar-0", "cultivar-1", "cultivar-2"}
            agent.agrees("wine", "v1", tally)
        finally:
            server.stop()
    finally:
        agent.close()
