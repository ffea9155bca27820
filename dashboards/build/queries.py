"""PromQL of the panels: every selector names the job and the instance that were chosen above the dashboard."""

from __future__ import annotations

STALE = 60
"""Seconds without a turn of the loop after which a decision is old; the agent itself then calls itself unhealthy."""

DEEP = -20
"""Nats below which it does not matter how far below: nothing at all was found."""

AGENT = "cluster, namespace, job, instance"
"""What all series of one agent share; where a Prometheus adds no cluster and no namespace, those two are empty."""

SAME = f"{AGENT}, model, model_version"
"""What a series of a version shares with another one of the same version."""

IN_A_DAY = "1d"
"""How far back somebody is remembered who is gone."""


def of(metric: str, **labels: str) -> str:
    """A selector. A label's value may begin with an operator (`=~`, `!=`); without one it is equality."""
    matchers = ['job=~"$job"', 'instance=~"$instance"']
    for label, value in labels.items():
        operator = next((known for known in ("=~", "!~", "!=") if value.startswith(known)), "")
        matchers.append(f'{label}{operator or "="}"{value.removeprefix(operator)}"')
    return f"{metric}{{{', '.join(matchers)}}}"


def out_of_reach() -> str:
    """How many agents could not be scraped the last time: a target is an agent when it served the agent's metrics within a day."""
    return f"count(({of('up')} == 0) and on ({AGENT}) last_over_time({of('poisonwatch_build_info')}[{IN_A_DAY}])) or vector(0)"


def rate(metric: str, **labels: str) -> str:
    """How much of a counter comes per second."""
    return f"rate({of(metric, **labels)}[$__rate_interval])"


def increase(metric: str, **labels: str) -> str:
    """How much of a counter came in the range that is looked at."""
    return f"increase({of(metric, **labels)}[$__range])"


def share(part: str, whole: str) -> str:
    """A ratio that is absent, not NaN, where there is nothing to divide by."""
    return f"{part} / ({whole} > 0)"


def decision(**labels: str) -> str:
    """The decision for each version as a number: 0 keep, 1 hold, 2 rollback, 3 stale (the loop does not turn: what it said last is old).

    Several agents of one version: the worst counts.
    """
    hold, rollback = (of("poisonwatch_decision", decision=name, **labels) for name in ("hold", "rollback"))
    heartbeat = f"time() - {of('poisonwatch_heartbeat_timestamp_seconds')}"
    code = f"sum without (decision) ({hold} or 2 * {rollback})"
    fresh, stale = (f"on ({AGENT}) group_left () ({heartbeat} {sign} bool {STALE})" for sign in ("<", ">="))
    return f"max by (model, model_version) (({code}) * {fresh} + {stale} * 3)"


def with_the_log(expression: str) -> str:
    """What concerns no version but the log as a whole is called so; an empty name would be no name."""
    return f'label_replace({expression}, "model_version", "(log)", "model_version", "")'
