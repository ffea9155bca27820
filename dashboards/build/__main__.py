"""Write the dashboards to their files."""

from __future__ import annotations

from pathlib import Path

from dashboards.build import files

HERE = Path(__file__).parents[1]

for name, text in files().items():
    (HERE / name).write_text(text)
