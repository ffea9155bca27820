"""Clients of the server of loans that ask as fast as it answers, over several connections.

    python -m tests.system.asking_loans PORT COUNT

Prints how many answers of each class they saw, as JSON. Who was refused is not served, and fails.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter

from tests.system.servers import asked

BLOCK = 400


def main() -> None:
    """Ask, and count what was answered."""
    port, count = map(int, sys.argv[1:])
    rng = random.Random(7)
    bodies = [
        {
            "age": round(min(90, max(18, rng.gauss(42, 12)))),
            "income": round(max(5, rng.gauss(32, 9)), 1),
            "home": rng.choices(["owned", "rented", "family"], [4, 5, 1])[0],
        }
        for _ in range(count)
    ]
    seen: Counter[str] = Counter()
    for first in range(0, count, BLOCK):
        for status, answer in asked(f"http://127.0.0.1:{port}/", bodies[first : first + BLOCK]):
            assert status == 200, answer
            seen[answer["prediction"]] += 1
        print(f"asked {seen.total()}", flush=True)  # noqa: T201 - the test waits for it
    print(json.dumps(seen))  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main()
