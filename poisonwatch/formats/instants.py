"""Times as foreign logs write them: without a zone, or in other units than seconds."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from poisonwatch.formats.records import EARLIEST, LATEST

_DATE = 10
"""Characters of a date without a time, which says too little."""


def zone_of(name: str) -> tzinfo:
    """The zone of an IANA name; UTC is known without any data of zones.

    Raises:
        ZoneInfoNotFoundError: when there is none of this name.
        ValueError: when this can be no name.
    """
    return UTC if name == "UTC" else ZoneInfo(name)


def instant(value: object, zone: tzinfo) -> object:
    """A timestamp as a native record writes it: Unix seconds.

    Local time is taken to be in `zone`. In the hour that is repeated when clocks are set back the first is meant; in the
    hour that is left out when they are set forward, the clock that was not set. What cannot be understood is given back
    as it is: the decoder says what is wrong with it.
    """
    if isinstance(value, str):
        return _read(value, zone)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return unix_seconds(value)
    return value


def unix_seconds(number: float) -> float:
    """Seconds of a Unix time in seconds, milli-, micro- or nanoseconds.

    From 2000 to 2099 a number can be only one of them, since a hundred years are shorter than a thousandfold.
    """
    if EARLIEST <= number <= LATEST:
        return number
    for unit in (1e3, 1e6, 1e9):
        if EARLIEST * unit <= number <= LATEST * unit:
            return number / unit
    return number


def _read(text: str, zone: tzinfo) -> object:
    if text.replace(".", "", 1).isdecimal():
        return unix_seconds(float(text))
    if len(text) <= _DATE:
        return text
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo is not None else found.replace(tzinfo=zone)).timestamp()
    except (ValueError, OverflowError):  # the first and the last day that there are cannot be shifted
        return text
