"""A bounded file with a sample of the rejected lines, for the person who must find out why they were."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MOST_BYTES = 4 << 20
"""Size at which the file is put aside once (as `.1`) and begun anew."""


class DeadLetters:
    """Appends (source, reason, start of the line) as JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab")

    def write(self, source: str, samples: Iterable[tuple[str, bytes]]) -> None:
        """Keep a few rejected lines."""
        for reason, line in samples:
            told = {"source": source, "reason": reason, "line": line.decode("utf-8", "backslashreplace")}
            self._file.write(json.dumps(told).encode() + b"\n")
        self._file.flush()
        if self._file.tell() > MOST_BYTES:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = self._path.open("ab")

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
