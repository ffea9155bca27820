"""What takes orders in a thread of its own and publishes what stands afterwards, as the agent's loop does between two turns."""

from __future__ import annotations

import dataclasses
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from poisonwatch.errors import OrderError
from poisonwatch.judge.orders import order, withdraw
from poisonwatch.judge.standing import Standing
from poisonwatch.server.orders import Orders
from tests.judge.findings import FEWEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poisonwatch.judge.override import Override
    from poisonwatch.server.orders import Order
    from poisonwatch.sinks.snapshot import Published


@contextmanager
def turning(published: Published) -> Iterator[Orders]:
    """Orders that are carried out while this lasts."""
    orders, stopped = Orders(), threading.Event()

    def turn() -> None:
        while not stopped.is_set():
            for asked, answer in orders.take():
                try:
                    answer.set_result(_done(published, asked))
                except OrderError as error:
                    answer.set_exception(error)
            stopped.wait(0.005)

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        yield orders
    finally:
        stopped.set()
        thread.join()


def _done(published: Published, asked: Order) -> Override | None:
    """Let the judge's functions carry out an order on what is published."""
    snapshot = published.snapshot
    assert snapshot is not None
    found = next(model for model in snapshot.models if model.model == asked.model)
    standing = Standing(
        alerts={alert.fingerprint: alert for alert in found.alerts},
        decisions={one.model_version: one for one in found.decisions},
        overrides={one.model_version: one for one in found.overrides},
    )
    made = asked.override(time.time())
    if made is None:
        standing = withdraw(standing, asked.model_version)
    else:
        standing = order(standing, made, [view.facts for view in found.versions.values()], FEWEST)
    changed = dataclasses.replace(found, overrides=tuple(standing.overrides.values()))
    models = tuple(changed if model is found else model for model in snapshot.models)
    published.snapshot = dataclasses.replace(snapshot, models=models, time=time.time())
    return standing.overrides.get(asked.model_version)
