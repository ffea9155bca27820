"""A bounded file with a sample of the rejected lines, for the person who must find out why they were."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from poisonwatch.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MOST_BYTES = 4 << 20
"""Size at which the file is put aside once (as `.1`) and begun anew."""


class DeadLetters:
    """Appends (source, reason, start of the line) as JSON lines. What the disk refuses is not kept: `lost` counts it.

    Raises:
        StateError: when the file cannot be opened at all.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._torn = False  # may the file end with half a line?
        self.lost = 0
        try:
            path.open("ab").close()
        except OSError as error:
            msg = (
                f"{path}: cannot be written ({error.strerror}): make it writable, or choose another `state.dead_letter`"
            )
            raise StateError(msg) from None

    def write(self, source: str, samples: Iterable[tuple[str, bytes]]) -> None:
        """Keep a few rejected lines."""
        told = [
            {"source": source, "reason": reason, "line": line.decode("utf-8", "backslashreplace")}
            for reason, line in samples
        ]
        if not told:
            return
        content = b"\n" * self._torn + b"".join(json.dumps(one).encode() + b"\n" for one in told)
        try:
            self._append(content)
        except OSError:
            # Samples are a help, not evidence: all that is rejected is counted elsewhere.
            self.lost += len(told)
            self._torn = True
        else:
            self._torn = False

    def _append(self, content: bytes) -> None:
        # Opened for each: a file or folder that was taken away meanwhile is made anew, or missed.
        with self._path.open("ab") as file:
            file.write(content)
            file.flush()
            full = file.tell() > MOST_BYTES
        if full:
            self._path.replace(self._path.with_name(self._path.name + ".1"))
