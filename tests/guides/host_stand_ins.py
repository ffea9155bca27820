"""What stands in for a host on which a reader is root: its folders below the reader's own, and `systemctl` that starts what a unit says.

Commands are typed word for word but for the paths, which lead to the same places in a root below the reader's folder. systemd's own
programs and logrotate are the real ones and are told of that root. `systemctl` runs the unit's `ExecStart=` within its walls
(`tests/deploy/units.py`) and waits for its READY=1, as systemd does.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import stat
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.guides.following import ROOT
from tests.guides.pages import commands

_PLACES = re.compile(r"(?<![\w./-])/(etc|opt|var)(?=[/ ])")

PROGRAMS = {
    "sudo": """\
        #!/bin/bash
        if [ "$1" = -u ]; then shift 2; fi
        exec "$@"
        """,
    "usermod": """\
        #!/bin/bash
        [ "$*" = "--append --groups loans poisonwatch" ]
        grep -q ^poisonwatch: {root}/etc/passwd
        """,
    "journalctl": """\
        #!/bin/bash
        [ "$1 $2" = "--unit poisonwatch" ]
        tail -n 20 {root}/run/log
        """,
    "systemd-sysusers": """\
        #!/bin/bash
        exec {python} -c 'import sys; from tests.guides.host_stand_ins import belongs; belongs(*sys.argv[1:])' systemd-sysusers --root={root} "$@"
        """,
    "systemd-tmpfiles": """\
        #!/bin/bash
        exec {python} -c 'import sys; from tests.guides.host_stand_ins import belongs; belongs(*sys.argv[1:])' systemd-tmpfiles --root={root} "$@"
        """,
    "logrotate": """\
        #!/bin/bash
        exec {python} -c 'import sys; from tests.guides.host_stand_ins import belongs; belongs(*sys.argv[1:])' logrotate --state={root}/run/logrotate "$@"
        """,
    "systemctl": """\
        #!/bin/bash
        exec {python} -m tests.guides.system_control {root} "$@"
        """,
}


def host(text: str, folder: Path) -> str:
    """Commands of root on a host; the first time, a host is made, with two days of a server's log."""
    root = folder.parent / "host"
    if not root.exists():
        _make(root)
    unknown = set(re.findall(r"^sudo ([a-z][\w-]*)", text, re.MULTILINE)) - {
        *PROGRAMS,
        *("python3", "ln", "install", "tee", "cp", "rm", "tail", "tar"),
    }
    assert not unknown, f"nothing stands in for {unknown}"
    # Of the environment there is one already, with the wheel of this repository. To install it once more takes a minute.
    text = re.sub(
        r"^sudo python3 -m venv (\S+)$",
        r'ln -s "$(dirname "$(dirname "$(command -v poisonwatch)")")" \1',
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r"^sudo \S+/bin/pip install .*\"poisonwatch\[all\]==\S+\"$", ":", text, flags=re.MULTILINE)
    return f"export PATH={root}/programs:$PATH\n" + _PLACES.sub(rf"{root}/\1", text)


def installed_host(text: str, folder: Path) -> str:
    """The same on a host that was set up before as docs/install/host.md says, to where the agent runs."""
    before = ""
    if not (folder.parent / "host").exists():
        shutil.copytree(ROOT / "deploy" / "systemd", folder / "deploy" / "systemd")
        for block in commands(ROOT / "docs" / "install" / "host.md"):
            if block.stands_in == "host" and "decision" not in block.text:
                before += f"{{\n{host(block.text, folder)}}} >/dev/null\n"
            if "enable --now" in block.text:
                break
    return before + host(text, folder)


def belongs(name: str, *arguments: str) -> None:
    """Run a program of the system, and leave with its code."""
    from tests.deploy.units import run  # noqa: PLC0415 - only programs of the host want it

    # Without the folder of the stand-ins: this is one of them.
    _, *others = os.environ["PATH"].split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(others)
    if name == "logrotate":
        # Its user is not in the system's list, and its log is below the folder.
        config = Path(arguments[-1])
        text = re.sub(r"^ *su loans loans\n", "", config.read_text(), flags=re.MULTILINE)
        config.write_text(_PLACES.sub(rf"{config.parents[2]}/\1", text))
    done = run(name, *arguments)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    # Files of other users are made by root alone: elsewhere they stay the reader's.
    sys.exit(done.returncode if "Operation not permitted" not in done.stderr else 0)


def _make(root: Path) -> None:
    for made in ("etc", "opt/poisonwatch", "var/lib", "var/log/loans", "run", "programs"):
        (root / made).mkdir(parents=True)
    (root / "etc" / "group").write_text("loans:x:1500:\n")
    for name, text in PROGRAMS.items():
        program = root / "programs" / name
        python = f"env PYTHONPATH={ROOT} {sys.executable}"
        program.write_text(textwrap.dedent(text).format(root=root, python=python))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    now = datetime.now(UTC)
    log = root / "var" / "log" / "loans" / "predictions.ndjson"
    log.with_name(log.name + ".1").write_text(records(3000, 1, now - timedelta(days=1)))
    log.write_text(records(600, 2, now - timedelta(minutes=20)))


def records(count: int, seed: int, ends: datetime) -> str:
    """Lines of a server of loans, one a second, the last at `ends`."""
    rng = random.Random(seed)
    lines = []
    for place in range(count):
        age, income = rng.gauss(45, 12), rng.lognormvariate(10, 0.5)
        score = (income / 30_000 + age / 90 + rng.gauss(0, 0.1)) / 2
        record = {
            "timestamp": (ends - timedelta(seconds=count - place)).isoformat(),
            "prediction_id": f"{seed}-{place}",
            "model": "loans",
            "model_version": "v7",
            "features": {"age": round(age), "income": round(income), "country": rng.choice(["de", "fr", "it"])},
            "prediction": "approve" if score > 0.55 else "decline",
            "confidence": round(min(0.999, 0.5 + abs(score - 0.55)), 4),
        }
        lines.append(json.dumps(record))
    return "\n".join(lines) + "\n"
