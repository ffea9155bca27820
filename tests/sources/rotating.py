"""A server whose log is rotated in every manner there is, and what a reader of it must give."""

from __future__ import annotations

import gzip
import os
import shutil
from typing import TYPE_CHECKING

import zstandard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Server:
    """Writes numbered lines to `log`; `written` is the truth.

    Time passes by hand: every write and rotation happens a second after the one before it, and files say so.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "log"
        self.count = 0
        self.written: list[bytes] = []
        self._now = 1_700_000_000
        self.unfinished = b""
        self._targets = 0
        self._hole = 0  # where a writer without O_APPEND goes on

    def line(self, fill: int) -> bytes:
        """The next line."""
        self.count += 1
        return b'{"line": %d, "fill": "%s"}\n' % (self.count, b"x" * (fill + 64))

    def write(self, fills: list[int]) -> None:
        """Whole lines, after what was left unfinished."""
        lines = [self.line(fill) for fill in fills]
        self._append(b"".join(lines))
        self.written += lines

    def begin_line(self, fill: int, share: float) -> None:
        """The first part of a line; the rest comes with whatever is done next.

        The first bytes of a file say which line it is: a file of which no more is there than every line begins with is not
        known again when it is truncated and has grown between two looks.
        """
        line = self.line(fill)
        begun = self.path.exists() and self.path.stat().st_size > self._hole
        cut = max(1 if begun else 24, int(share * (len(line) - 1)))
        self._append(line[:cut])
        self.unfinished = line[cut:]
        self.written.append(line)

    def finish_line(self) -> None:
        """The rest of a line that was begun."""
        self._append(b"")

    def cut_line(self) -> None:
        """The server dies within a line and another is started: what there is of the line is all that there will be."""
        if self.unfinished:
            self.written[-1] = self.written[-1][: -len(self.unfinished)] + b"\n"
            self.unfinished = b""

    def rename(self) -> None:
        """Like logrotate and RotatingFileHandler: log becomes log.1, log.1 log.2, and so on."""
        self.shift()
        if self.path.exists():
            self._tick()
            self.path.rename(self.folder / "log.1")
        self._hole = 0

    def rename_and_create(self) -> None:
        """The same, and an empty file is made at once."""
        self.rename()
        self.path.touch()
        self._stamp(self.path)

    def by_date(self) -> None:
        """Like logrotate's dateext: log becomes log-20260101-000001."""
        if self.path.exists():
            self._tick()
            self.path.rename(self.folder / f"log-20260101-{self._now % 1_000_000:06d}")
        self._hole = 0

    def copy_and_truncate(self, between: Callable[[], None] = lambda: None, *, appending: bool = True) -> None:
        """Like logrotate's copytruncate; a writer that does not append goes on at his old place, and leaves a hole."""
        if not self.path.exists():
            return
        self.finish_line()
        self.shift()
        shutil.copy(self.path, self.folder / "log.1")
        self._stamp(self.folder / "log.1")
        between()
        self._hole = 0 if appending else self.path.stat().st_size
        os.truncate(self.path, 0)
        self._stamp(self.path)

    def compress(self, *, zstd: bool, whole: bool = True) -> None:
        """The oldest plain file is compressed; if not `whole`, the compressed file is there beside it, half written."""
        self.remove_half_written()
        plain = [path for path in self._rotated() if path.suffix not in {".gz", ".zst"}]
        if not plain:
            return
        path = plain[0]
        content = path.read_bytes()
        packed = zstandard.compress(content) if zstd else gzip.compress(content)
        target = path.with_name(path.name + (".zst" if zstd else ".gz"))
        target.write_bytes(packed if whole else packed[: len(packed) // 2])
        if whole:
            shutil.copystat(path, target)
            path.unlink()

    def remove_half_written(self) -> None:
        """A compression that broke off is begun anew."""
        for path in (*self.folder.glob("log*.gz"), *self.folder.glob("log*.zst")):
            plain = path.with_suffix("")
            if plain.exists():
                path.unlink()

    def backup(self, name: str) -> None:
        """Somebody copies the log aside, under a name of rotation; a few bytes are not known for a copy."""
        self.finish_line()
        if self.path.exists() and self.path.stat().st_size >= 64:
            shutil.copy(self.path, self.folder / name)
            self._stamp(self.folder / name)

    def rewrite(self) -> None:
        """The log is replaced by a copy of itself, as rsync and editors do."""
        if self.path.exists():
            shutil.copy(self.path, self.folder / ".log.new")
            shutil.copystat(self.path, self.folder / ".log.new")
            (self.folder / ".log.new").replace(self.path)
            self._hole = 0

    def remove_oldest(self) -> None:
        """Old files are deleted, and what a broken compression left of them."""
        self.remove_half_written()
        for path in self._rotated()[:1]:
            path.unlink()

    def shift(self) -> None:
        """Every log.N becomes log.N+1."""
        self.remove_half_written()
        numbered = [(int(path.name.split(".")[1]), path) for path in self.folder.glob("log.[0-9]*")]
        for number, path in sorted(numbered, reverse=True):
            path.rename(path.with_name(path.name.replace(f".{number}", f".{number + 1}", 1)))

    def _rotated(self) -> list[Path]:
        """The oldest first."""
        found = [*self.folder.glob("log.[0-9]*"), *self.folder.glob("log-*")]
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def _append(self, content: bytes) -> None:
        content, self.unfinished = self.unfinished + content, b""
        if not content:
            return
        flags = os.O_WRONLY | os.O_CREAT
        descriptor = os.open(self.path, flags)
        try:
            end = max(self._hole, os.fstat(descriptor).st_size)
            os.pwrite(descriptor, content, end)
        finally:
            os.close(descriptor)
        self._stamp(self.path)

    def _tick(self) -> None:
        self._now += 1

    def _stamp(self, path: Path) -> None:
        self._tick()
        os.utime(path, (self._now, self._now))
