"""Asks a server at a fixed rate, or as fast as it answers, and prints what each request took.

`python -m benchmarks.overhead.load PORT PER_SECOND SECONDS`; PER_SECOND 0 is as fast as it answers. At a rate, a request is due at its time
whether others have been answered or not, and its latency counts from when it was due: a server that stalls is charged for all that
had to wait (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

CONNECTIONS = 16


def bodies(count: int, seed: int) -> list[bytes]:
    """Requests (count,) with rows of scikit-learn's tumours, each mixed of two, so that no two are alike."""
    from sklearn.datasets import load_breast_cancer

    rng = random.Random(seed)
    rows = load_breast_cancer().data.tolist()
    found = []
    for _ in range(count):
        one, other, share = rng.choice(rows), rng.choice(rows), rng.random()
        row = [round(share * a + (1 - share) * b, 4) for a, b in zip(one, other, strict=True)]
        body = json.dumps({"row": row}).encode()
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        found.append(head.encode() + body)
    return found


async def answered(reader: asyncio.StreamReader) -> None:
    """Read one answer to its end.

    Raises:
        ValueError: when it is not 200.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        msg = head.decode()
        raise ValueError(msg)
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))


async def ask(port: int, per_second: float, seconds: float) -> dict[str, float]:
    """How many requests were answered in a second, and what they took, in milliseconds."""
    asked = bodies(2000, seed=int(time.time()))
    due: asyncio.Queue[float | None] = asyncio.Queue()
    took: list[float] = []
    number = 0

    async def client() -> None:
        nonlocal number
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (at := await due.get() if per_second else time.perf_counter()) is not None and time.perf_counter() < ends:
            writer.write(asked[number % len(asked)])
            number += 1
            await answered(reader)
            took.append(time.perf_counter() - at)
        writer.close()

    begins = time.perf_counter()
    ends = begins + seconds
    clients = [asyncio.create_task(client()) for _ in range(CONNECTIONS)]
    if per_second:
        for tick in range(int(per_second * seconds)):
            at = begins + tick / per_second
            await asyncio.sleep(max(at - time.perf_counter(), 0))
            due.put_nowait(at)
        for _ in clients:
            due.put_nowait(None)
    await asyncio.gather(*clients)
    took.sort()
    return {
        "per_second": len(took) / (time.perf_counter() - begins),
        "p50_ms": 1000 * took[len(took) // 2],
        "p99_ms": 1000 * took[int(len(took) * 0.99)],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))))
