"""One open file whose complete lines are given, as long as it is the file that it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poisonwatch.sources.identity import HEAD, SHORTEST, TAIL, Mark, digest

if TYPE_CHECKING:
    from poisonwatch.sources.contents import Contents

HOLE = 4
"""So many NULs at the start of a file are a hole: whoever truncated it did not tell the writer, who goes on at his old
place. Fewer may be the first character of UTF-16."""


class Reading:
    """Reads a file on from a mark, and keeps the mark with it.

    A line is complete with its newline. Of a line longer than `longest` bytes only that many are given, the rest is skipped.
    """

    def __init__(self, contents: Contents, mark: Mark, longest: int) -> None:
        self.contents = contents
        self.mark = mark
        self.partial = b""
        self._longest = longest
        readable = mark.head and not (contents.compressed and mark.start)
        self._head = contents.read(mark.start, mark.head) if readable else b""
        self._tail = contents.read(mark.offset - mark.tail, mark.tail) if mark.tail else b""

    @property
    def unread(self) -> int:
        """Bytes after the place; of a compressed file those that are known of."""
        return max(0, self.contents.length - self.mark.offset)

    @property
    def hardly_known(self) -> bool:
        """Has it more now, and are those bytes that were read before so few that other contents may begin with them?"""
        met = self.mark.offset + len(self.partial)
        return not self.contents.compressed and len(self._head) < SHORTEST and self.contents.length > met

    @property
    def behind(self) -> bool:
        """May there be more to read? Of a compressed file that is known when all was decompressed."""
        return self.unread > 0 or (self.contents.compressed and not self.contents.ended)

    def lines(self, most: int) -> bytes | None:
        """Complete lines of the next `most` bytes; empty when there is no whole one in them, None at the end of the file.

        Raises:
            OSError: when it cannot be read.
        """
        at = self.mark.offset + len(self.partial)
        read = self.contents.read(at, most)
        if not read:
            return None
        if not self.same():
            return None  # truncated, and already longer than it was: what was read is from the middle of other contents
        if not self._head and self.mark.offset == self.mark.start:
            read = self._without_hole(read)
            if not read:
                return b""
        if len(self._head) < HEAD:
            self._know(read)
        if self.mark.skipping:
            _, newline, rest = read.partition(b"\n")
            self._pass(read[: len(read) - len(rest)])
            if not newline:
                return b""
            self.mark.skipping = False
            read = rest
        head, newline, tail = (self.partial + read).rpartition(b"\n")
        lines = head + newline
        self._pass(lines)
        self.partial = tail
        if len(tail) >= self._longest:
            # The decoder counts it as too long; its remaining bytes are not worth holding.
            lines += tail[: self._longest] + b"\n"
            self._pass(tail)
            self.partial, self.mark.skipping = b"", True
        return lines

    def last(self) -> bytes:
        """The last line of a file that nobody writes any more; it is complete without its newline."""
        line = self.partial + b"\n" if self.partial else b""
        self._pass(self.partial)
        self.partial = b""
        return line

    def same(self) -> bool:
        """Is it still the file that was read? Not when it is shorter, or was written anew."""
        if self.contents.compressed:
            return True
        mark = self.mark
        if self.contents.length < mark.offset + len(self.partial):
            return False
        begins = not self._head or self.contents.read(mark.start, len(self._head)) == self._head
        return begins and (
            not self._tail or self.contents.read(mark.offset - len(self._tail), len(self._tail)) == self._tail
        )

    def _pass(self, given: bytes) -> None:
        """The place moves on."""
        if given:
            mark = self.mark
            self._tail = given[-TAIL:] if len(given) >= TAIL else (self._tail + given)[-TAIL:]
            mark.offset += len(given)
            mark.tail, mark.tail_digest = len(self._tail), digest(self._tail)

    def _know(self, read: bytes) -> None:
        """A file that was short is known by more bytes now: by those that were read, whatever has become of it since."""
        mark = self.mark
        known = mark.start + len(self._head) - (mark.offset + len(self.partial))
        if 0 <= known < len(read):
            self._head += read[known : known + HEAD - len(self._head)]
            mark.head, mark.head_digest = len(self._head), digest(self._head)

    def _without_hole(self, read: bytes) -> bytes:
        """What stands after the NULs that a file begins with."""
        rest = read.lstrip(b"\0")
        hole = len(read) - len(rest)
        if not self.mark.start and hole < HOLE:
            return read
        self.mark.start += hole
        if not rest:
            self.mark.start = self.contents.after_hole(self.mark.start)
        self.mark.offset = self.mark.start
        return rest
