"""Tells whoever started the agent that it watches, and goes on watching: systemd, by its datagrams (sd_notify(3)).

They are few, so no library is needed: READY=1, WATCHDOG=1 and STOPPING=1, to the socket that `NOTIFY_SOCKET` names.
"""

from __future__ import annotations

import math
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping


class Supervisor:
    """Whoever waits for signs of life, by the `environment`; without `NOTIFY_SOCKET` nobody does, and nothing is sent.

    What the environment says of it is taken out, so that no program that this one starts speaks in its name.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        path, watchdog, process = (
            environment.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        )
        # A name that begins with @ is one of Linux' abstract ones.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        mine = watchdog.isdecimal() and process in {"", str(os.getpid())}
        self._every = int(watchdog) / 1e6 / 4 if mine else math.inf
        self._latest = 0.0
        self._ready = False

    def turned(self) -> None:
        """The loop turns: it is ready with its first turn, and lives with every other.

        From the loop and from nowhere else: a thread of its own would say that all is well while the loop stands still.
        """
        now = time.monotonic()
        if not self._ready:
            self._ready, self._latest = self._said(b"READY=1"), now
        elif now - self._latest >= self._every and self._said(b"WATCHDOG=1"):
            self._latest = now

    def stopping(self) -> None:
        """The loop has been left: nobody shall wait for another turn."""
        self._said(b"STOPPING=1")

    def _said(self, message: bytes) -> bool:
        """Whether it was heard, or nobody listens. What was not is said again: an agent that is not heard watches on."""
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)
                out.connect(self._address)
                out.send(message)
        except OSError:
            return False
        return True
