"""Signs: pieces of evidence of one version explain each other, and only where they fire."""

from __future__ import annotations

import msgspec
import pytest

from poisonwatch.monitor.signs import BROKEN_EFFECT, mostly_lost, moved, with_signs
from poisonwatch.profile.indicators import ERRORS, INPUTS, QUALITY, SLICE_CONFIDENCE, SLICE_ERRORS, SLICE_FLIPS
from poisonwatch.types import Evidence, Sign, Subject


def found(group: str, log_e: float = 1.0, effect: float = 1.0, where: str = "", rate: float = 0.4) -> Evidence:
    """Evidence with a floor of .3, about one slice."""
    subject = Subject(indicator=f"wrong where {where}", signal="x", rate=rate, expected=0.1)
    return Evidence(
        model="m",
        model_version="v1",
        group=group,
        signal="x",
        log_e=log_e,
        effect=effect,
        floor=0.3,
        n=10,
        onset=0.0,
        subjects=(subject,),
    )


def test_what_moved_has_strength_and_size() -> None:
    """From a tenth of the budget on, and beyond the floor on either side."""
    evidence = [found("a"), found("b", -2.0), found("c", -2.5), found("d", effect=0.2), found("e", effect=-0.3)]
    assert moved(evidence) == {"a", "b", "e"}
    assert moved(evidence, 0.0) == {"a", "e"}


@pytest.mark.parametrize("group", [ERRORS, SLICE_ERRORS])
def test_broken_values_are_said_of_errors(group: str) -> None:
    """Where values are missing, or a feature moved farther than drift goes; not where an input drifts."""
    broken = [found(QUALITY)], [found(INPUTS, effect=-BROKEN_EFFECT)]
    for beside in broken:
        assert with_signs([found(group), *beside])[0].signs == (Sign.BROKEN,)
    for beside in ([found(INPUTS)], [found(QUALITY, -2.5)], []):
        assert with_signs([found(group), *beside])[0].signs == ()


def test_flips_are_confined_to_the_slice_that_is_unsure_too() -> None:
    """The same slice must show both marks."""
    flips = found(SLICE_FLIPS, where="country = fr")
    for where, signs in (("country = fr", (Sign.CONFINED,)), ("country = de", ())):
        assert with_signs([flips, found(SLICE_CONFIDENCE, where=where)])[0].signs == signs


def test_most_lines_lost_is_a_sign_of_its_own() -> None:
    """From a half on."""
    assert mostly_lost(found(QUALITY, rate=0.5)).signs == (Sign.MOSTLY_LOST,)
    assert mostly_lost(found(QUALITY, rate=0.49)).signs == ()
    assert mostly_lost(msgspec.structs.replace(found(QUALITY), subjects=())).signs == ()
