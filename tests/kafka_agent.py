"""An agent as small as it can be, to be killed: counts messages of a topic and saves what it counted with its position.

`python -m tests.kafka_agent STATE CONFIG SEED` runs until it is told to stop by SIGTERM. The state is the numbers of all
messages that were counted; a checkpoint is written at random moments, whole or not at all, as the real one is.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from poisonwatch.config.sources import KafkaSourceConfig
from poisonwatch.formats.events import events
from poisonwatch.sources.kafka import KafkaSource


def run(state: Path, config: KafkaSourceConfig, seed: int) -> None:
    """Count until SIGTERM."""
    chance = random.Random(seed)
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    source = KafkaSource(config)
    counted: list[int] = []
    if state.exists():
        saved = json.loads(state.read_text())
        counted = saved["counted"]
        assert source.resume(saved["position"]) == []

    def save() -> None:
        position: dict[str, Any] = source.position()
        beside = state.with_suffix(".new")
        beside.write_text(json.dumps({"position": position, "counted": counted}))
        beside.replace(state)
        source.commit(position)

    if not state.exists():
        save()
    while not stopped:
        busy = False
        for stream in source.streams():
            while chance.random() < 0.9 and (block := stream.poll()) is not None:
                busy = True
                counted += [int(event.body) for event in events(block)]
        if chance.random() < 0.1:
            save()
        if not busy:
            time.sleep(chance.random() * 0.01)
    save()
    source.close()


if __name__ == "__main__":
    run(Path(sys.argv[1]), KafkaSourceConfig.model_validate_json(sys.argv[2]), int(sys.argv[3]))
