"""How the program starts: each command imports what it runs, and shells complete what can be typed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from poisonwatch.cli import COMPLETE
from poisonwatch.config import dump
from tests.folders import Folder
from tests.system.programs import Program
from tests.system.programs import poisonwatch as poisonwatch_command
from tests.test_cli import poisonwatch

pytestmark = pytest.mark.system

HEAVY = {"numpy", "scipy", "river", "pydantic", "starlette", "structlog", "sklearn", "pyarrow", "confluent_kafka"}
"""What takes long to import, or much memory."""


CODE = """
import sys
from poisonwatch.cli import cli
try:
    cli.main(sys.argv[1:], standalone_mode=False)
except BaseException as ended:
    print(repr(ended), file=sys.stderr)
print(*{name.partition('.')[0] for name in sys.modules})
"""


def imported(*arguments: str) -> set[str]:
    """Which of them a command has imported when it ends, or when it listens."""
    command = [sys.executable, "-c", CODE, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout
        assert running.stderr
        try:
            for line in running.stderr:
                if "event=listening" in line:
                    running.terminate()
            return HEAVY & set(running.stdout.read().splitlines()[-1].split())
        finally:
            running.kill()


@pytest.mark.parametrize(
    "arguments", [["version"], ["--help"], ["run", "--help"], ["completion", "bash"]], ids=" ".join
)
def test_what_needs_nothing_imports_nothing(arguments: list[str]) -> None:
    """Help is there at once, and so is what a shell completes."""
    assert imported(*arguments) == set()


def test_who_only_asks_starts_fast() -> None:
    """`decision` runs in loops of pipelines; the agent that it asks does the work."""
    assert imported("decision", "--url", "http://127.0.0.1:1") == {"numpy"}


def test_the_sidecar_leaves_out_what_is_optional(tmp_path: Path) -> None:
    """What only learns references, reads tables or topics, or is asked at an onset, costs it no memory."""
    config = Folder(tmp_path).config
    (tmp_path / "poisonwatch.yaml").write_text(dump(config))
    found = imported("run", "--config", str(tmp_path / "poisonwatch.yaml"), "--web.listen-address", "127.0.0.1:0")
    assert found == {"numpy", "scipy", "pydantic", "starlette", "structlog"}


TYPED = [
    ("poisonwatch re", {"reference", "replay"}),
    ("poisonwatch reference ", {"build", "show"}),
    ("poisonwatch run --con", {"--config"}),
    ("poisonwatch run --log.level w", {"warning"}),
    ("poisonwatch completion ", {"bash", "zsh", "fish"}),
    ("poisonwatch check --config poisonwatch.y", {"poisonwatch.yaml"}),
    ("poisonwatch nothing-begins-so", set()),
]


@pytest.mark.parametrize(("typed", "offered"), TYPED, ids=[typed for typed, _ in TYPED])
def test_bash_completes(typed: str, offered: set[str], tmp_path: Path) -> None:
    """What a real bash offers at Tab after `eval "$(poisonwatch completion bash)"`."""
    (tmp_path / "poisonwatch.yaml").touch()
    (tmp_path / "other").touch()
    script = """
        eval "$(poisonwatch completion bash)"
        read -ra COMP_WORDS <<<"$TYPED"; [[ $TYPED == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE=$TYPED; COMP_POINT=${#TYPED}
        compopt() { [[ $2 == default ]] && COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")); }
        _poisonwatch_completion poisonwatch
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "TYPED": typed, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == offered, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str) -> None:
    """It names the variable by which the program is asked."""
    script = poisonwatch("completion", shell).stdout
    assert f"{COMPLETE}={shell}_complete" in script


def test_a_source_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Once, with what to do; and when it has come, since the server may write its first line later."""
    folder = Folder(tmp_path)
    (tmp_path / "poisonwatch.yaml").write_text(dump(folder.config))
    program = Program(
        poisonwatch_command("run", "--config", "poisonwatch.yaml", "--web.listen-address", "127.0.0.1:0"), tmp_path
    )
    program.start()
    try:
        assert "look whether the path is right" in program.said(rf"source_missing source={folder.log} .*")[0]
        folder.log.touch()
        program.said(rf"source_found source={folder.log}")
        assert sum("source_missing" in line for line in program.output) == 1
    finally:
        program.close()
