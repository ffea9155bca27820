"""What Flagger's webhooks ask: may it go on (gate), must it go back (rollback)?

Flagger takes 2xx for yes, and yes means the opposite for the two. So there are two endpoints, and what is not known for sure is
409 for both: nobody is promoted and nobody rolled back because somebody was silent. The body says why; Flagger shows it as an event.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from poisonwatch.server.api.answers import DecisionAnswer, FlaggerAnswer, FlaggerBody
from poisonwatch.server.api.operation import Operation
from poisonwatch.server.api.queries import decision_for
from poisonwatch.server.api.requests import STALE, Parameter, Refused, stale
from poisonwatch.types import Action

if TYPE_CHECKING:
    from poisonwatch.server.api.requests import Asked

MODEL = Parameter("model", str, "The model; or `model` in the metadata of the body.")
VERSION = Parameter("model_version", str, "The version; or `model_version` in the metadata of the body.")


def operations() -> list[Operation]:
    """The two questions."""
    return [
        Operation(
            "POST",
            f"/flagger/{name}",
            f"flagger_{name}",
            summary,
            FlaggerAnswer,
            partial(_answer, wanted),
            (MODEL, VERSION),
            FlaggerBody,
            (409,),
            stale_too=True,
        )
        for name, wanted, summary in (
            ("gate", Action.KEEP, "May it go on? 200 where the decision is keep."),
            ("rollback", Action.ROLLBACK, "Must it go back? 200 where the decision is rollback."),
        )
    ]


async def _answer(wanted: Action, asked: Asked) -> FlaggerAnswer:
    try:
        found = await _decided(asked)
    except Refused as refused:
        # Flagger counts anything but 2xx as no; one status says that it is our no.
        raise Refused(409, refused.error) from None
    if found.decision is not wanted:
        target = f" to {found.target}" if found.target else ""
        raise Refused(409, f"{found.model} {found.model_version}: {found.decision.value}{target}. {found.summary}")
    return FlaggerAnswer(
        model=found.model, model_version=found.model_version, decision=found.decision, summary=found.summary
    )


async def _decided(asked: Asked) -> DecisionAnswer:
    """The decision for the version that is asked about.

    Raises:
        Refused: when none can be given.
    """
    body = await asked.body()
    try:
        metadata = (msgspec.json.decode(body, type=FlaggerBody).metadata if body.strip() else None) or {}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"body: this is not what Flagger sends ({error})") from None
    model, version = (_one(asked, metadata, name) for name in ("model", "model_version"))
    if stale(asked.snapshot):
        raise Refused(503, f"the loop has not turned for {STALE:.0f} seconds: its decision would be old")
    return decision_for(asked.snapshot, model, version)


def _one(asked: Asked, metadata: dict[str, str], name: str) -> str:
    named = {given for given in (asked.parameters[name], metadata.get(name)) if given}
    if len(named) != 1:
        problem = f"two of them are named, {' and '.join(sorted(named))}" if named else "none is named"
        raise Refused(400, f"{name}: {problem}: say it once, in the query or in the metadata of the webhook")
    return named.pop()
