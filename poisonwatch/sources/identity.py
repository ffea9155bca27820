"""What a file is known by, whatever it is called, wherever it was copied to, and whether it was compressed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from poisonwatch.sources.contents import Contents

HEAD = 1024
"""First bytes that a file is known by. Short files are known by all that they had."""

TAIL = 1024
"""Bytes before the place that was reached; files that begin alike differ there."""

SHORTEST = 64
"""Bytes that a file must have to be taken for the beginning of another: less may begin every line."""


def digest(data: bytes) -> str:
    """A short hash of some bytes."""
    return hashlib.blake2b(data, digest_size=12).hexdigest()


class Mark(msgspec.Struct, kw_only=True):
    """How far a file was read, and how to know it again.

    `start` is where its first bytes stand, after the NULs of a hole; `head` of them were hashed, and `tail` of those before
    `offset`. `skipping` says that the place is within a line too long, `ignored` that the file is not to be read,
    `copied` that it is a copy, which may end within a line: it tells nothing of other files. `size` and `written` (mtime, ns)
    are what it looked like when it was done with; -1 while it is not.
    A device and inode of -1: there is no such file any more, or its contents were replaced.
    """

    device: int
    inode: int
    start: int = 0
    head: int = 0
    head_digest: str = ""
    offset: int = 0
    tail: int = 0
    tail_digest: str = ""
    skipping: bool = False
    ignored: bool = False
    copied: bool = False
    size: int = -1
    written: int = -1

    def begins(self, contents: Contents) -> bool:
        """Does the file begin so? Behind a hole a compressed file would have to be decompressed: its NULs and its tail must do."""
        if not self.head:
            return True
        if contents.compressed and self.start:
            return contents.read(0, 1) == b"\0"
        return digest(contents.read(self.start, self.head)) == self.head_digest

    def holds(self, contents: Contents) -> bool | None:
        """Was this file read up to here? None when that is not known yet: it has to be decompressed up to the place."""
        if not self.begins(contents):
            return False
        if not contents.reach(self.offset):
            return None if contents.compressed and not contents.ended else False
        return not self.tail or digest(contents.read(self.offset - self.tail, self.tail)) == self.tail_digest

    def moved(self, device: int, inode: int) -> Mark:
        """The same place in another file with the same contents."""
        return msgspec.structs.replace(self, device=device, inode=inode, copied=False, size=-1, written=-1)
