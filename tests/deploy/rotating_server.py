"""A server's log, written as fast as this process can, in one of the ways in which servers write theirs; for `test_logrotate.py`.

    python -m tests.deploy.rotating_server each-line|handler|signal LOG NAME

Until SIGTERM; then it prints how many lines of each class it wrote, as JSON.
"""

from __future__ import annotations

import json
import logging.handlers
import os
import signal
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PER_SECOND = 700.0


def each_line(log: Path) -> Callable[[str], None]:
    """Opens the log for each line, with Python's way to say so."""

    def write(line: str) -> None:
        with log.open("a") as file:
            file.write(line + "\n")

    return write


def handler(log: Path) -> Callable[[str], None]:
    """Looks before each line whether the log is still the file that is open: the logging module's way."""
    watched = logging.handlers.WatchedFileHandler(log)

    def write(line: str) -> None:
        watched.emit(logging.LogRecord("predictions", logging.INFO, "", 0, line, None, None))

    return write


def at_signal(log: Path) -> Callable[[str], None]:
    """Keeps the log open until SIGHUP."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    told = False

    def tell(_number: int, _frame: object) -> None:
        nonlocal told
        told = True

    signal.signal(signal.SIGHUP, tell)

    def write(line: str) -> None:
        nonlocal file, told
        if told:
            told = False
            os.close(file)
            file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(file, f"{line}\n".encode())

    return write


WAYS = {"each-line": each_line, "handler": handler, "signal": at_signal}


def main() -> None:
    """Write until told to stop."""
    way, log, name = sys.argv[1:]
    stopped = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    write = WAYS[way](Path(log))
    print("writes", flush=True)  # noqa: T201 - the test waits for it
    classes: Counter[str] = Counter()
    began = time.monotonic()
    number = 0
    while not stopped:
        while number < (time.monotonic() - began) * PER_SECOND:
            label = "spam" if number % 7 == 0 else "ham"
            record = {
                "timestamp": datetime.now(UTC).isoformat(),
                "prediction_id": f"{name}-{number}",
                "model": "sms-spam",
                "model_version": way,
                "text": "call me when you are there",
                "prediction": label,
                "confidence": 0.9,
            }
            write(json.dumps(record))
            classes[label] += 1
            number += 1
        time.sleep(0.001)
    print(json.dumps(classes))  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main()
