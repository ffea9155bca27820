"""The agent as rendered manifests configure it, on this machine: the same configuration with the paths of a folder."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from click.testing import CliRunner

from poisonwatch.cli import cli
from tests.deploy.manifests import DEPLOY, Document

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GUIDE = DEPLOY.parent / "docs" / "install" / "kubernetes.md"
MOUNTS = (
    "/references",
    "/etc/poisonwatch-web",
    "/etc/poisonwatch",
    "/var/lib/poisonwatch",
    "/var/log/model",
    "/run/secrets",
)
"""Where manifests mount what the agent reads and writes."""


def trusted_log() -> str:
    """A log of a model `loans`, some hundred predictions."""
    rng = random.Random(7)
    lines = []
    for number in range(600):
        income = rng.gauss(40, 12)
        prediction = "approve" if income > 35 else "refuse"
        at = f"2026-01-05T{9 + number // 60:02d}:{number % 60:02d}:00Z"
        features = {"age": rng.randint(18, 80), "income": round(income, 1)}
        line = {"timestamp": at, "prediction_id": f"t{number}", "model": "loans", "model_version": "v7"}
        lines.append(json.dumps({**line, "features": features, "prediction": prediction, "confidence": 0.9}) + "\n")
    return "".join(lines)


def furnish(folder: Path) -> Path:
    """Put into a folder what the mounts hold: a reference, tokens, and users as the guide makes them."""
    for mount in MOUNTS:
        (folder / mount.strip("/")).mkdir(parents=True, exist_ok=True)
    (folder / "trusted.ndjson").write_text(trusted_log())
    built = folder / "references" / "loans.reference.json"
    done = CliRunner().invoke(cli, ["reference", "build", str(folder / "trusted.ndjson"), "--out", str(built)])
    assert done.exit_code == 0, done.output
    for secret, key in (("poisonwatch-token", "token"), ("kafka", "password")):
        place = folder / "run" / "secrets" / "poisonwatch" / secret
        place.mkdir(parents=True)
        (place / key).write_text("Hs8v0l2mQf5rTz9xWc3b")
    made = re.findall(r"^python - <<'END'\n(.*?)^END$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    (script,) = [one for one in made if "bcrypt" in one]
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True)
    web = folder / "etc" / "poisonwatch-web"
    for path in (folder / "web").iterdir():
        (web / path.name).write_text(path.read_text())
    return folder


def settled(text: str, folder: Path) -> str:
    """A text with the folder's paths instead of the mounts'."""
    return re.sub(rf"(?<![\w./])({'|'.join(MOUNTS)})(?=/)", lambda found: f"{folder}{found[1]}", text)


def check(config: Document, folder: Path, change: Callable[[str], str] = lambda text: text) -> tuple[int, str]:
    """What `poisonwatch check` says of a ConfigMap's configuration: exit code and output."""
    path = folder / "etc" / "poisonwatch" / "poisonwatch.yaml"
    path.write_text(change(settled(config["data"]["poisonwatch.yaml"], folder)))
    done = CliRunner().invoke(cli, ["check", "--config", str(path)])
    return done.exit_code, done.output + (f"{done.exception}" if done.exit_code else "")
