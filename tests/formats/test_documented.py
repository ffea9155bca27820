"""The examples of docs/formats.md are configurations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML

import poisonwatch
from poisonwatch.config.sources import AnySource

PAGE = Path(poisonwatch.__file__).parent.parent / "docs" / "formats.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_a_configuration(example: str) -> None:
    """Of sources."""
    loaded: dict[str, Any] = YAML(typ="safe").load(example)
    assert loaded["sources"]
    for source in loaded["sources"]:
        TypeAdapter[Any](AnySource).validate_python(source)
