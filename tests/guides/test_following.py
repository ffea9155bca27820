"""A page that says what is not so is found out, wherever it says it."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.guides.following import Environment, NotFollowableError, follow, own_network
from tests.guides.pages import PageError, commands

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.slow, pytest.mark.system]

RIGHT = """\
# A page

```sh
name=world
cat >greeting.txt <<'END'
hello
END
mkdir deeper
cd deeper
```

Then, in another terminal:

<!-- terminal: server -->
```sh
python3 -m http.server --bind 127.0.0.1 9787
```

<!-- until it works -->
```sh
python3 -c 'import urllib.request; print(urllib.request.urlopen("http://127.0.0.1:9787/greeting.txt").read().decode(), end="")'
```
<!-- prints -->
```text
hel...
```

<!-- stands in: cloud -->
```sh
cloud copy elsewhere here
```

```sh
echo "$name" in "$(basename "$PWD")"; ls ../copied
```
<!-- prints -->
```text
world in deeper
../copied
```

<!-- terminal: server -->
```sh
echo started anew; sleep 1000
```
<!-- prints -->
```text
started anew
```
"""


def _cloud(text: str, folder: Path) -> None:
    assert text == "cloud copy elsewhere here\n"
    (folder / "copied").touch()


@pytest.fixture
def followed(tmp_path: Path) -> Callable[[str], None]:
    """Follow a page of this text, with the system's programs alone."""
    environment = Environment(tmp_path / "environment", tmp_path, tmp_path)

    def follow_text(text: str) -> None:
        page = tmp_path / "page.md"
        page.write_text(text)
        follow(page, tmp_path / "reader", environment, {"cloud": _cloud, "other": lambda text, _: text})

    return follow_text


def test_a_page_that_is_right_is_followed_to_its_end(followed: Callable[[str], None]) -> None:
    """One shell for all blocks, terminals beside it that can be used again, stand-ins at their turn, and what it prints."""
    followed(RIGHT)


@pytest.mark.parametrize(
    ("wrong", "instead_of", "found"),
    [
        ("nmae=world", "name=world", "name: unbound variable"),
        ("mkdir -q deeper", "mkdir deeper", "line 4: ends with 1"),
        ("false | true", "mkdir deeper", "line 4: ends with 1"),
        ("exit 0", "mkdir deeper", "closes the reader's shell"),
        ("http.sever", "http.server", "ends with 1 in its terminal"),
        ("exit 3", "echo started anew; sleep 1000", "prints something else"),
        ("world in here", "world in deeper", "prints something else"),
        ("world in deeper\nand more", "world in deeper", "prints something else"),
        ("stands in: clod", "stands in: cloud", "has no 'clod'"),
        ("stands in: other", "stands in: cloud", "cloud: command not found"),
    ],
)
def test_a_page_that_is_wrong_is_found_out(
    wrong: str, instead_of: str, found: str, followed: Callable[[str], None]
) -> None:
    """By its line, with all that was typed and printed until then."""
    assert instead_of in RIGHT
    with pytest.raises(NotFollowableError, match=r"line \d+: ") as raised:
        followed(RIGHT.replace(instead_of, wrong, 1))
    assert found in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ("<!-- untill it works -->\n```sh\ntrue\n```\n", "no comment that a block of commands can have"),
        ("<!-- surprise -->\n```sh\ntrue\n```\n", "no comment that a block of commands can have"),
        ("<!-- terminal: one -->\n\n```sh\ntrue\n```\n", "without an empty line"),
        ("<!-- until it works -->\n", "without an empty line"),
        ("<!-- terminal: one -->\n```python\npass\n```\n", "says nothing above"),
        ("<!-- terminal: one -->\n<!-- until it works -->\n```sh\ntrue\n```\n", "goes on running"),
        ("<!-- prints -->\n```text\nhello\n```\n", "directly after"),
        ("```sh\ntrue\n```\n```yaml\na: b\n```\n<!-- prints -->\n```text\nhello\n```\n", "directly after"),
        ("```bash\ntrue\n```\n", "language `sh`"),
        ("```\n$ true\n```\n", "language `sh`"),
        ("```sh\n\n```\n", "without a command"),
        ("```sh\ntrue\n", "never closed"),
    ],
)
def test_a_page_that_is_written_otherwise_is_refused(wrong: str, found: str, tmp_path: Path) -> None:
    """Nothing that looks like a command, or like a word about one, is passed over."""
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{wrong}")
    with pytest.raises(PageError, match=r"line \d+: ") as raised:
        commands(page)
    assert found in str(raised.value)


def test_nothing_that_a_page_started_outlives_it(followed: Callable[[str], None], tmp_path: Path) -> None:
    """Neither what runs in a terminal, nor what a block left in the background, nor their children."""
    followed(
        "<!-- terminal: one -->\n```sh\nsleep 1000 & echo $! >a; sleep 1000\n```\n"
        "```sh\nsleep 1000 & echo $! >b\n(sleep 1000 & echo $! >c)\n```\n"
        "<!-- until it works -->\n```sh\ntest -s a\n```\n"
    )
    for name in ("a", "b", "c"):
        pid = (tmp_path / "reader" / "here" / name).read_text().strip()
        state = Path("/proc", pid, "stat")
        assert not state.exists() or ") Z " in state.read_text(), f"{pid} is still there"


def test_a_page_is_alone_in_its_network() -> None:
    """What listens outside is not reached from inside; or there is one network only, in which pages take turns."""
    ask = "import socket; socket.create_connection(('127.0.0.1', {}), 5)"
    with own_network() as enter, socket.create_server(("127.0.0.1", 0)) as outside:
        command = ["python3", "-c", ask.format(outside.getsockname()[1])]
        assert subprocess.run(command, check=False).returncode == 0
        inside = subprocess.run([*enter, *command], check=False, capture_output=True, text=True)
    assert ("Connection refused" in inside.stderr) == bool(enter)
