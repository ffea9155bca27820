"""The source of kind `file`: one log at a path, or all logs that match a glob."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from poisonwatch.sources.file import FollowedFile
from poisonwatch.sources.folders import Folders

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


class FilesSource:
    """Follows what is at a path."""

    def __init__(self, path: Path, longest: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._folders = Folders(clock)
        self._streams = {str(path): FollowedFile(path, longest, folders=self._folders, clock=clock)}

    @property
    def found(self) -> bool:
        """Is there a file?"""
        return any(stream.found for stream in self._streams.values())

    def streams(self) -> Sequence[FollowedFile]:
        """The logs that there are now."""
        return list(self._streams.values())

    def lag(self) -> int:
        """Bytes that were not given yet."""
        return sum(stream.lag() for stream in self._streams.values())

    def position(self) -> dict[str, Any]:
        """How far every file was read."""
        return {"streams": {name: stream.position() for name, stream in self._streams.items()}}

    def resume(self, position: dict[str, Any]) -> list[str]:
        """Go on after a saved position."""
        said = []
        for name, stream in self._streams.items():
            if name in position["streams"]:
                said += stream.resume(position["streams"][name])
        return said

    def commit(self, position: dict[str, Any]) -> None:
        """Files are not this agent's to delete."""

    def close(self) -> None:
        """Let go of files."""
        for stream in self._streams.values():
            stream.close()
