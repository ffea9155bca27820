"""What takes orders in a thread of its own and publishes what stands afterwards, as the agent's loop does between two turns."""

from __future__ import annotations

import dataclasses
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from poisonwatch.errors import OrderError, UnknownVersionError
from poisonwatch.judge.override import Override
from poisonwatch.server.orders import Orders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poisonwatch.server.orders import Order
    from poisonwatch.sinks.snapshot import Published

WITHOUT_TARGET = "a rollback needs a target: name a version with --to"
NONE_STANDS = "no override stands for it"


@contextmanager
def turning(published: Published) -> Iterator[Orders]:
    """Orders that are carried out while this lasts."""
    orders, stopped = Orders(), threading.Event()

    def turn() -> None:
        while not stopped.is_set():
            for order, answer in orders.take():
                try:
                    answer.set_result(_done(published, order))
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


def _done(published: Published, order: Order) -> Override | None:
    """Put an order into what is published."""
    snapshot = published.snapshot
    assert snapshot is not None
    found = next((model for model in snapshot.models if model.model == order.model), None)
    if found is None or order.model_version not in found.versions:
        msg = f"{order.model}/{order.model_version} is not there"
        raise UnknownVersionError(msg)
    standing = [one for one in found.overrides if one.model_version != order.model_version]
    made = None
    if order.decision is not None:
        now = time.time()
        if order.decision == "rollback" and order.target is None:
            raise OrderError(WITHOUT_TARGET)
        made = Override(
            model=order.model,
            model_version=order.model_version,
            decision=order.decision,
            author=order.author,
            reason=order.reason,
            time=now,
            expires=now + order.seconds,
            target=order.target,
            user=order.user,
        )
        standing.append(made)
    elif len(standing) == len(found.overrides):
        raise OrderError(NONE_STANDS)
    changed = dataclasses.replace(found, overrides=tuple(standing))
    models = tuple(changed if model is found else model for model in snapshot.models)
    published.snapshot = dataclasses.replace(snapshot, models=models, time=time.time())
    return made
