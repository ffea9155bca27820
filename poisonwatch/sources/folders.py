"""What stands in folders now: the files that belong to a log, and those that match a glob."""

from __future__ import annotations

import fnmatch
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from poisonwatch.sources.rotation import logs_of, shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCAN_SECONDS = 1.0
"""How long a listing of a folder is good, unless something is known to have changed."""

MOST_MET = 200_000
"""Names that a glob looks at, at most."""


class Entry(NamedTuple):
    """A regular file as the file system tells of it; `written` is its mtime in nanoseconds."""

    path: Path
    device: int
    inode: int
    size: int
    written: int

    @property
    def key(self) -> tuple[int, int]:
        """What it is known by while the system runs."""
        return self.device, self.inode


def entry_of(path: Path) -> Entry | None:
    """What is at a path, links followed; None where there is no regular file, or one that may not be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Entry(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class _Listing(NamedTuple):
    at: float
    names: frozenset[str]
    rotated: dict[str, list[str]]


class Folders:
    """Listings of folders, shared by all that follow files in them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._listings: dict[Path, _Listing] = {}

    def siblings(self, path: Path, *, fresh: bool) -> list[Path] | None:
        """Files that a rotation may have made of a log; None when its folder cannot be read.

        Where the path is a link, also those of the file that it points to, and that file's likes with other numbers.
        """
        listing = self._listing(path.parent, fresh=fresh)
        if listing is None:
            return None
        found = {path.parent / name: None for name in listing.rotated.get(path.name, ())}
        if path.is_symlink():
            target = Path(os.path.realpath(path))
            there = self._listing(target.parent, fresh=fresh)
            if there is not None:
                alike = shape(target.name)
                found |= dict.fromkeys(target.parent / name for name in there.rotated.get(target.name, ()))
                found |= dict.fromkeys(target.parent / name for name in there.names if shape(name) == alike)
        found.pop(path, None)
        return list(found)

    def with_inode(self, folder: Path, inode: int) -> list[Path]:
        """Files of a folder with this inode, whatever they are called."""
        try:
            with os.scandir(folder) as scan:
                return [folder / entry.name for entry in scan if entry.inode() == inode]
        except OSError:
            return []

    def forget(self) -> None:
        """Drop listings of folders that nobody asked for of late."""
        now = self._clock()
        self._listings = {folder: listing for folder, listing in self._listings.items() if now - listing.at < 60}

    def _listing(self, folder: Path, *, fresh: bool) -> _Listing | None:
        known, now = self._listings.get(folder), self._clock()
        if known is not None and not fresh and 0 <= now - known.at < SCAN_SECONDS:
            return known
        try:
            names = [path.name for path in folder.iterdir()]
        except OSError:
            self._listings.pop(folder, None)
            return None
        rotated: dict[str, list[str]] = {}
        for name in names:
            for log in logs_of(name):
                rotated.setdefault(log, []).append(name)
        self._listings[folder] = listing = _Listing(now, frozenset(names), rotated)
        return listing


def fixed(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder above the first wildcard, and the parts below it; a path without wildcards has no parts."""
    parts = pattern.parts
    for number, part in enumerate(parts):
        if any(character in part for character in "*?["):
            return Path(*parts[:number]), parts[number:]
    return pattern, ()


class _Walk:
    """One walk through folders; links to folders are followed, and no folder is entered twice for the same."""

    def __init__(self) -> None:
        self._met: set[tuple[int, int, int]] = set()
        self._left = MOST_MET

    def paths(self, folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
        """Paths below a folder that match the parts of a pattern."""
        part, rest = parts[0], parts[1:]
        if part == "**":
            if self._again(folder, len(parts)):
                return
            yield from self.paths(folder, rest or ("*",))
        for name, is_folder in self._names(folder, hidden=part.startswith(".")):
            if part == "**":
                if is_folder:
                    yield from self.paths(folder / name, parts)
            elif fnmatch.fnmatchcase(name, part):
                if not rest:
                    yield folder / name
                elif is_folder:
                    yield from self.paths(folder / name, rest)

    def _again(self, folder: Path, depth: int) -> bool:
        try:
            status = folder.stat()
        except OSError:
            return True
        place = status.st_dev, status.st_ino, depth
        if place in self._met:
            return True
        self._met.add(place)
        return False

    def _names(self, folder: Path, *, hidden: bool) -> list[tuple[str, bool]]:
        try:
            with os.scandir(folder) as scan:
                found = sorted((entry.name, entry.is_dir()) for entry in scan)
        except OSError:
            return []
        found = found[: max(self._left, 0)]
        self._left -= len(found)
        return [(name, is_folder) for name, is_folder in found if hidden or not name.startswith(".")]


def matching(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """Paths that match; folders that are links are entered, each folder once."""
    return _Walk().paths(folder, parts)
