"""The status page: for somebody who was woken, on a phone. What to do stands first; everything on it is escaped."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from poisonwatch import __version__
from poisonwatch.mining.naming import in_a_sentence
from poisonwatch.server.api.requests import stale
from poisonwatch.server.api.telling import told_alert, told_decision
from poisonwatch.sinks.prometheus import MINED
from poisonwatch.types import Action, AlertState, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from poisonwatch.server.api.answers import AlertAnswer, DecisionAnswer
    from poisonwatch.sinks.snapshot import Snapshot
    from poisonwatch.types import Trigger

STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 sans-serif;margin:1rem auto;max-width:48rem;padding:0 1rem;overflow-wrap:anywhere}"
    "h1{font-size:1rem;font-weight:normal;opacity:.8}h2{font-size:1.2rem;margin:2rem 0 .5rem}h3{font-size:1.3rem;margin:0}"
    "h4{margin:.8rem 0 .2rem}p{margin:.4rem 0}ul,ol{margin:.2rem 0;padding-left:1.4rem}"
    "section{border-left:.5rem solid;padding:.4rem 0 .4rem .8rem;margin:1rem 0}summary{cursor:pointer;padding:.4rem 0}"
    "dl{margin:.4rem 0}dt{float:left;clear:left;min-width:5.5rem;opacity:.8}dd{margin-left:6rem}"
    ".keep{border-color:#2e9e4b}.hold{border-color:#d18a00}.rollback,.stale{border-color:#e0002f}"
    ".stale{border:.2rem solid #e0002f;padding:.5rem}"
)

SHOWN = 50
"""Alerts and triggers of each kind on the page; the rest is in the API."""


def page(snapshot: Snapshot | None) -> str:
    """The page as of a snapshot, as HTML."""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<meta http-equiv=refresh content=5><title>{_title(snapshot)}</title><style>{STYLE}</style>"
        f"{''.join(_body(snapshot))}"
        f"<h1>poisonwatch {html.escape(__version__)}</h1>"
        '<p><a href="/metrics">metrics</a> &middot; <a href="/v1/decisions">decisions as JSON</a> &middot; '
        '<a href="/v1/alerts">alerts</a> &middot; <a href="/v1/triggers">triggers</a> &middot; '
        '<a href="/v1/journal">journal</a> &middot; <a href="/v1/openapi.json">API</a> &middot; '
        '<a href="/-/healthy">health</a></p></html>'
    )


def _title(snapshot: Snapshot | None) -> str:
    """The worst that is said, for a tab among many."""
    said = {decision.decision for model in snapshot.models for decision in model.decisions} if snapshot else set()
    if stale(snapshot):
        return "STALE - poisonwatch"
    worst = next((one for one in (Action.ROLLBACK, Action.HOLD, Action.KEEP) if one in said), None)
    return "poisonwatch" if worst is None else f"{worst.value.upper()} - poisonwatch"


def _body(snapshot: Snapshot | None) -> Iterator[str]:
    if stale(snapshot):
        yield "<p class=stale>The loop does not turn: what stands here is old. Do not act on it; look after the agent first.</p>"
    models = snapshot.models if snapshot is not None else ()
    decisions = [
        told_decision(snapshot, model, one) for model in models for one in model.decisions if snapshot is not None
    ]
    for decision in sorted(decisions, key=lambda one: -one.code):
        yield _decision(decision)
    if not decisions:
        yield "<p>No version was judged yet: the first window is still open.</p>"
    alerts = [told_alert(model, alert) for model in models for alert in model.alerts]
    if alerts:
        alerts.sort(key=lambda one: (one.severity is not Severity.PAGE, one.state is not AlertState.FIRING))
        yield f"<h2>Open alerts</h2>{''.join(map(_alert, alerts[:SHOWN]))}{_more(len(alerts))}"
    triggers = [trigger for model in models for trigger in model.triggers]
    if triggers:
        yield f"<h2>Triggers</h2>{''.join(map(_trigger, triggers[:SHOWN]))}{_more(len(triggers))}"
    for model in models:
        if MINED in model.blind:
            yield f"<p>Trigger mining is blind for {_(model.model)}: {_(model.blind[MINED])}.</p>"


def _more(count: int) -> str:
    return f"<p>{count - SHOWN} more are in the API.</p>" if count > SHOWN else ""


def _decision(decision: DecisionAnswer) -> str:
    """One version: what to do, what happens, then why."""
    advice = {Action.ROLLBACK: "roll back", Action.HOLD: "hold", Action.KEEP: "keep"}[decision.decision]
    target = f" to {_(decision.target)}" if decision.target else ""
    reason = _(decision.reason.value.replace("_", " "))
    facts = {"began": _minute(decision.onset), "decided": _minute(decision.since), "reason": reason}
    if decision.affected.share is not None or decision.affected.predictions is not None:
        facts["affected"] = _(affected(decision))
    if decision.override is not None:
        one = decision.override
        facts["override"] = f"{_(one.decision.value)} by {_(one.author)} until {_minute(one.expires)}: {_(one.reason)}"
    if decision.rollback is not None:
        facts["rollback"] = f"<b>{_(decision.rollback.state.value)}</b>. {_(decision.rollback.summary)}"
    if decision.target_because:
        facts["target"] = _(decision.target_because)
    why = "".join(
        f"<h4>{head}</h4>{_list(said)}"
        for head, said in (
            ("For", decision.speaks_for),
            ("Against", decision.against),
            ("Ruled out", decision.ruled_out),
            ("What would change it", decision.would_change),
        )
        if said
    )
    return (
        f"<section class={decision.decision.value}><h3>{_(decision.model)} {_(decision.model_version)}: "
        f"{advice}{target}</h3><p>{_(decision.summary)}</p>"
        + (f"<h4>What to do</h4>{_list(decision.next, 'ol')}" if decision.next else "")
        + f"<dl>{''.join(f'<dt>{name}<dd>{told}' for name, told in facts.items() if told)}</dl>"
        + (
            f"<details{'' if decision.decision is Action.KEEP else ' open'}><summary>Why</summary>{why}</details>"
            if why
            else ""
        )
        + "</section>"
    )


def affected(decision: DecisionAnswer) -> str:
    """How much is touched, in words."""
    share, count = decision.affected.share, decision.affected.predictions
    counted = "" if count is None else f"{count} predictions"
    part = "" if share is None else f"{share:.1%} of {decision.model_version}'s"
    return ", ".join(told for told in (counted, part) if told)


def _alert(alert: AlertAnswer) -> str:
    about = f"{_(alert.model)} {_(alert.model_version or '')}".strip()
    head = f"{alert.severity.value}, {alert.state.value}: {_(alert.cause.value.replace('_', ' '))}"
    return (
        f"<p><b>{about}</b> ({head}, since {_minute(alert.onset)}). {_(alert.summary)} "
        f'<a href="/v1/alerts/{_(alert.fingerprint)}">{_(alert.fingerprint)}</a></p>'
    )


def _trigger(trigger: Trigger) -> str:
    head = f"{_(trigger.model)} {_(trigger.model_version)}"
    told = _(in_a_sentence(trigger, trigger.model_version))
    return f"<p><b>{head}</b> ({trigger.state.value}, {_(trigger.trigger)}). {told}</p>"


def _list(said: Iterable[str], kind: str = "ul") -> str:
    return f"<{kind}>{''.join(f'<li>{_(one)}' for one in said)}</{kind}>"


def _minute(instant: str | None) -> str:
    return "" if instant is None else f"{_(instant[:16].replace('T', ' '))} UTC"


def _(text: str) -> str:
    """Text as HTML: names and words come from logs and from whoever answers."""
    return html.escape(text)
