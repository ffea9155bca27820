"""What a page asks its reader to type: its `sh` blocks, and what the comments above them say.

Every `sh` block of a page is a command that a test runs (`following.py`), in the order of the page. An HTML comment directly above the
fence, which a reader never sees, says what is special about it; several stand one above the other:

- `<!-- terminal: NAME -->`: typed in another terminal, where it goes on running until the page ends. A second block for the same
  terminal is typed after Ctrl-C there.
- `<!-- until it works -->`: typed again for up to a minute, until it succeeds and prints what the page says.
- `<!-- stands in: NAME -->`: needs what is not here (a cluster, a cloud). The function of that name in `stand_ins.py` looks at the text
  and brings about the same.
- `<!-- with: PATH -->`: that file or folder of the repository is there, as in a clone.
- `<!-- prints -->` above a `text` block after it: what it prints. `...` stands for anything, on one line or over several.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[^`\s]*)[^`]*$")
_COMMENT = re.compile(r"^ *<!-- (?P<said>.*?) -->$")
_OF_COMMANDS = re.compile(r"(?P<word>terminal|stands in|with): (?P<value>\S+)|(?P<alone>until it works)")
_OURS = re.compile(r"(terminal|stands? in|with|until|prints?)\b")
_OTHER_SHELLS = {"bash", "shell", "console", "shell-session", "shellscript", "zsh"}


class PageError(Exception):
    """A page that cannot be followed as it is written; the message says the line, and what to write."""


@dataclass(frozen=True)
class Block:
    """Commands of a page, typed together."""

    line: int
    """Line of the page on which the commands begin."""
    text: str
    terminal: str = ""
    """The other terminal in which it is typed; empty for the reader's first."""
    stands_in: str = ""
    """Name of the function that does the same here."""
    repeated: bool = False
    """Whether it is typed until it works."""
    given: tuple[str, ...] = ()
    """Paths of the repository that it wants."""
    prints: str | None = None

    def is_printed(self, output: str) -> bool:
        """Whether an output is what the page says."""
        if self.prints is None:
            return True
        pieces = [re.escape(piece) for piece in _even(self.prints).split("...")]
        return re.fullmatch(".*?".join(pieces), _even(output), re.DOTALL) is not None


def _even(text: str) -> str:
    """A text without what nobody sees: spaces at the ends of lines, empty lines at the ends."""
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines()).rstrip()


@dataclass(frozen=True)
class _Fenced:
    """Any fenced block, with the comments directly above it."""

    line: int
    language: str
    text: str
    comments: tuple[str, ...]


def commands(page: Path) -> tuple[Block, ...]:
    """The commands of a page, in their order.

    Raises:
        PageError: when a comment cannot be understood, or commands hide in a block of another language.
    """
    blocks: list[Block] = []
    last = -2
    for place, fenced in enumerate(_fences(page.read_text("utf-8"))):
        if fenced.language == "sh":
            blocks.append(_block(fenced))
            last = place
        elif fenced.language in _OTHER_SHELLS or re.search(r"^\$ ", fenced.text, re.MULTILINE):
            msg = f"line {fenced.line}: commands go into a block of the language `sh`, without a prompt"
            raise PageError(msg)
        elif "prints" in fenced.comments:
            if last != place - 1 or fenced.language != "text" or blocks[-1].prints is not None:
                msg = f"line {fenced.line}: `prints` goes above a `text` block, directly after the `sh` block that prints it"
                raise PageError(msg)
            blocks[-1] = replace(blocks[-1], prints=fenced.text)
        elif (stray := next(filter(_OURS.match, fenced.comments), None)) is not None:
            msg = f"line {fenced.line}: `{stray}` says nothing above a block of `{fenced.language}`"
            raise PageError(msg)
    return tuple(blocks)


def _block(fenced: _Fenced) -> Block:
    """A block of commands with what its comments say."""
    if not fenced.text.strip():
        msg = f"line {fenced.line}: a block without a command"
        raise PageError(msg)
    block = Block(fenced.line, fenced.text)
    for said in fenced.comments:
        found = _OF_COMMANDS.fullmatch(said)
        if found is None:
            msg = (
                f"line {fenced.line}: `{said}` is no comment that a block of commands can have; there are `terminal: NAME`, "
                "`until it works`, `stands in: NAME` and `with: PATH`"
            )
            raise PageError(msg)
        if found["alone"]:
            block = replace(block, repeated=True)
        elif found["word"] == "terminal":
            block = replace(block, terminal=found["value"])
        elif found["word"] == "stands in":
            block = replace(block, stands_in=found["value"])
        else:
            block = replace(block, given=(*block.given, found["value"]))
    if block.terminal and block.repeated:
        msg = f"line {fenced.line}: what goes on running in a terminal is not typed until it works"
        raise PageError(msg)
    return block


def _fences(text: str) -> Iterator[_Fenced]:
    """Every fenced block of a page."""
    lines = iter(enumerate(text.splitlines(), 1))
    comments: list[str] = []
    for number, line in lines:
        if (comment := _COMMENT.match(line)) is not None:
            comments.append(comment["said"])
            continue
        opened = _FENCE.match(line)
        if opened is None:
            _refuse_stray(comments, number)
            comments = []
            continue
        inside: list[str] = []
        for _, following in lines:
            if re.fullmatch(rf" *{opened['fence']}`* *", following):
                break
            inside.append(following)
        else:
            msg = f"line {number}: the block is never closed"
            raise PageError(msg)
        body = textwrap.dedent("\n".join(inside) + "\n") if opened["indent"] else "\n".join(inside) + "\n"
        yield _Fenced(number + 1, opened["language"], body, tuple(comments))
        comments = []
    _refuse_stray(comments, len(text.splitlines()) + 1)


def _refuse_stray(comments: list[str], line: int) -> None:
    """A comment of ours that is not directly above a block would be overlooked in silence."""
    stray = next(filter(_OURS.match, comments), None)
    if stray is not None:
        msg = f"line {line}: `{stray}` belongs directly above a block, without an empty line"
        raise PageError(msg)
