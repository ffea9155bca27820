"""Cells of CSV as values: what JSON would take for a number is one."""

from __future__ import annotations

import csv
import re

from poisonwatch.formats.lenient import Rejected

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
"""Numbers as JSON writes them: a code such as 00123 stays a text."""

LONGEST_NUMBER = 40
"""Characters of a cell that may be a number."""


def cell_value(cell: str) -> float | str | None:
    """The number or text of a cell; None where it is empty."""
    if not cell:
        return None
    if len(cell) > LONGEST_NUMBER or not NUMBER.fullmatch(cell):
        return cell
    return float(cell) if "." in cell or "e" in cell or "E" in cell else int(cell)


def csv_rows(text: str) -> list[list[float | str | None]]:
    """The rows of CSV without a line of names.

    Raises:
        Rejected: when its quotes are broken.
    """
    try:
        return [
            [cell_value(cell.strip()) for cell in row] for row in csv.reader(text.splitlines(True), strict=True) if row
        ]
    except csv.Error:
        raise Rejected("malformed") from None
