"""Hostile input: what a million distinct names take of memory, and what malformed lines cost the honest ones.

`python -m benchmarks.hostile` prints both tables; `POISONWATCH_FLOOD` makes shorter floods. Throughput is per CPU second of the
decoding process, the best of several rounds of both logs in turn: the machine is noisy, the ratio less so.
"""

from __future__ import annotations

import gc
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from poisonwatch.assemble.logs import decoder_of
from poisonwatch.config import LimitsConfig
from poisonwatch.config.formats import PLAIN, KserveConfig
from poisonwatch.formats.events import Block, Event, frame
from tests.streams import START, lines, predictions, usual_reference
from tests.system import programs
from tests.system.floods import FLOODS, flood
from tests.system.hostile import HONEST, SERVICE, reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from poisonwatch.sources.intake import BlockDecoder

RECORDS = 300_000
BLOCK = 1 << 20
ROUNDS = 3

MALFORMED = (
    b"{",
    b"\xff\xfe\xfd",
    b"[1, 2, 3]",
    b'{"timestamp": "yesterday", "prediction": "ham"}',
    b'{"timestamp": 1767600000, "features": {"amount": 1}}',
    b"[" * 2000,
    b'{"timestamp": 1767600000, "prediction": "ham", "features": {"amount": "x", "age": [1], "odd": 1}}',
    b'{"timestamp": 1767600000, "prediction": {"a": 1}}',
)
"""Lines that are none, or that hold odd values, in turn."""


def native_blocks(records: int, every: int) -> list[Block]:
    """Blocks of so many honest lines; every so manieth is followed by one that is not."""
    some = [lines([record]) for record in predictions(20_000, 1, rate=100.0)]
    found = []
    for number in range(records):
        found.append(some[number % len(some)])
        if every and number % every == 0:
            found.append(MALFORMED[number // every % len(MALFORMED)] + b"\n")
    return _cut(found, framed=False)


def kserve_blocks(records: int, every: int) -> list[Block]:
    """The same as pairs of requests and responses that were posted."""
    found = []
    for number, record in enumerate(predictions(records, 1, rate=100.0)):
        features = record["features"]
        asked = {"instances": [[features["amount"], features["age"], features["country"]]]}
        answered = {"predictions": [{"label": record["prediction"], "confidence": record["confidence"]}]}
        for side, body in (("request", asked), ("response", answered)):
            headers = {
                "ce-specversion": "1.0",
                "ce-id": f"r{number}",
                "ce-type": f"{SERVICE}.{side}",
                "ce-inferenceservicename": "mail",
                "ce-time": str(record["timestamp"]),
            }
            data = json.dumps(body).encode()
            if every and number % every == 0 and side == "response":
                found.append(frame(Event(MALFORMED[number // every % len(MALFORMED)], {}, START + number / 100, "/")))
            found.append(frame(Event(data, headers, START + number / 100, "/")))
    return _cut(found, framed=True)


def _cut(parts: list[bytes], *, framed: bool) -> list[Block]:
    blocks, held, size = [], [], 0
    for part in parts:
        held.append(part)
        size += len(part)
        if size >= BLOCK:
            blocks.append(Block(b"".join(held), framed))
            held, size = [], 0
    return [*blocks, Block(b"".join(held), framed)]


def ratio(
    make: Callable[[], BlockDecoder], clean: list[Block], dirty: list[Block], records: int
) -> tuple[float, float]:
    """Honest records per CPU second without and with malformed ones; none of them is lost."""
    rates: dict[bool, float] = {False: 0.0, True: 0.0}
    for _ in range(ROUNDS):
        for bad, blocks in ((False, clean), (True, dirty)):
            decoder = make()
            gc.collect()
            began = time.process_time()
            accepted = sum(decoder.decode(block, START + 1e9).predictions for block in blocks)
            took = time.process_time() - began
            if accepted < records:
                msg = f"{records - accepted} honest records were lost"
                raise RuntimeError(msg)
            rates[bad] = max(rates[bad], records / took)
    return rates[False], rates[True]


def native_decoder() -> BlockDecoder:
    """What reads a native log."""
    limits = LimitsConfig()
    return decoder_of(PLAIN, "predictions", {"mail": usual_reference().schema}, limits, limits.line_bytes)


def kserve_decoder() -> BlockDecoder:
    """What reads KServe's posts."""
    limits = LimitsConfig()
    written = KserveConfig(features=("amount", "age", "country"))
    return decoder_of(written, "predictions", {"mail": usual_reference().schema}, limits, limits.line_bytes)


def throughput(records: int) -> None:
    """Print the first table."""
    print(f"{records} honest records; records per CPU second, best of {ROUNDS}")
    print(f"{'':16}{'clean':>10}{'1 % bad':>10}{'ratio':>8}")
    for name, make, blocks, count in (
        ("native lines", native_decoder, native_blocks, records),
        ("KServe posts", kserve_decoder, kserve_blocks, records // 10),
    ):
        clean, dirty = ratio(make, blocks(count, 0), blocks(count, 100), count)
        print(f"{name:16}{clean:10,.0f}{dirty:10,.0f}{dirty / clean:8.2f}", flush=True)


def floods(count: int) -> None:
    """Print the second table."""
    programs.PATIENCE = 900.0
    print(f"{count} hostile lines, {HONEST} honest ones among them; the agent's peak RSS (ceiling: 512 MB)")
    print(f"{'':44}{'MB':>6}{'checkpoint MB':>15}{'series':>8}{'slowest scrape s':>18}")
    with tempfile.TemporaryDirectory(prefix="poisonwatch-hostile-") as folder:
        references = {name: reference(Path(folder), name) for name in ("mail", "other")}
        for name in FLOODS:
            with tempfile.TemporaryDirectory(prefix="poisonwatch-hostile-") as place:
                begin = time.time() // 60 * 60 - 2 * HONEST
                peak = flood(name, count, Path(place), references, begin)
            print(
                f"{name:44}{peak.memory / 2**20:6.0f}{peak.checkpoint / 1e6:15.1f}{peak.series:8}{peak.slowest:18.2f}",
                flush=True,
            )


if __name__ == "__main__":
    throughput(RECORDS)
    floods(int(os.environ.get("POISONWATCH_FLOOD", "1000000")))
