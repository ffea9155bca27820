"""Whoever is woken pastes what stands in a runbook: each command is one that exists, and every word to replace is explained."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from poisonwatch.cli import cli
from tests.system.programs import ROOT

RUNBOOKS = ROOT / "docs" / "runbooks"
PAGES = {path.stem: path.read_text() for path in sorted(RUNBOOKS.glob("*.md"))}

TO_REPLACE = re.compile(r"(?<![\w$%{.-])[A-Z][A-Z_]{2,}(?![\w.])")


def _blocks(text: str) -> list[str]:
    """Lines that are set as code, to be pasted as they are."""
    return [line.strip() for line in re.findall(r"^(?: {4}| {7})(\S.*)$", text, re.MULTILINE)]


def _commands(text: str) -> list[str]:
    """What is set as code, in lines of its own or within a sentence."""
    return _blocks(text) + re.findall(r"`([^`\n]+)`", text)


OURS = sorted({command for text in PAGES.values() for command in _commands(text) if command.startswith("poisonwatch ")})
WHOLE = [command for command in OURS if any(command in _blocks(text) for text in PAGES.values())]


@pytest.mark.parametrize("command", OURS)
def test_our_commands_exist(command: str) -> None:
    """The program has the command, and the command its options; one that is pasted has all that it requires."""
    words = shlex.split(command)[1:]
    found: click.Command = cli
    while isinstance(found, click.Group) and words and (inner := found.get_command(click.Context(found), words[0])):
        found, words = inner, words[1:]
    assert found is not cli, command
    params = {option: one for one in found.params if isinstance(one, click.Option) for option in one.opts}
    used = {word for word in words if word.startswith("--")}
    assert used <= set(params), command
    if command in WHOLE:
        assert {option for option, one in params.items() if one.required} <= used, command


def test_there_are_commands_to_paste() -> None:
    """The checks above have something to check."""
    assert len(WHOLE) > 5


@pytest.mark.parametrize("page", PAGES)
def test_silences_can_be_pasted(page: str) -> None:
    """`amtool` knows no Alertmanager by itself, and within a paragraph its quotes would be typeset."""
    text = PAGES[page]
    silences = [line for line in text.splitlines() if "silence add" in line]
    for line in silences:
        assert line.startswith("    amtool --alertmanager.url=http://ALERTMANAGER:9093 silence add alertname=")
        assert {"--duration", "--author", "--comment"} == {
            word.partition("=")[0] for word in shlex.split(line)[4:] if "--" in word
        }
        assert f"alertname={page} " in line


@pytest.mark.parametrize("page", PAGES)
def test_what_to_put_in_is_explained(page: str) -> None:
    """Every word in capitals of a command to paste has its row in the table of README.md."""
    explained = set(TO_REPLACE.findall(PAGES["README"].split("## What to put in", 1)[1].split("## ", 1)[0]))
    for command in _blocks(PAGES[page]):
        assert set(TO_REPLACE.findall(re.sub(r"'[^']*'", "", command))) <= explained, command


def test_files_have_one_name() -> None:
    """The journal is called as in README.md and in the demo, wherever it is spoken of."""
    for path in [*ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.*"), ROOT / "README.md"]:
        assert not re.search(r"journal\.(?!jsonl)(?:nd)?json", path.read_text()), path


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link of a runbook names a file that is there."""
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", PAGES[page]):
        assert (RUNBOOKS / target).exists(), target
