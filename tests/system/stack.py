"""The whole chain for a person to look at: `make stack` runs the demo, Prometheus and Alertmanager with what is shipped, and prints the pages."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

import click

from tests.system.paging import Alertmanager, Received, Receiver, with_rules
from tests.system.programs import Program, Prometheus, free_port, poisonwatch

INDENT = " " * 6
SPEED = 60
"""Seconds of the demo's traffic per second: two hours in two minutes."""


def main() -> None:
    """Run all of it on 127.0.0.1 until Ctrl-C, or until the terminal is closed."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="poisonwatch-stack-")))
        receiver = Receiver(shown)
        stack.callback(receiver.close)
        alertmanager = Alertmanager(folder, receiver.url)
        stack.callback(alertmanager.close)
        address = f"127.0.0.1:{free_port()}"
        demo = Program(poisonwatch("demo", f"--speed={SPEED}", f"--web.listen-address={address}"), folder)
        stack.callback(demo.close)
        demo.start()
        prometheus = Prometheus(folder, address, with_rules(folder, alertmanager.address))
        stack.callback(prometheus.close)
        click.echo(
            f"\n  poisonwatch   http://{address}/          kill it and see: kill {demo.process.pid} (the page takes over 3 minutes)\n"
            f"  Prometheus    {prometheus.url}/alerts\n"
            f"  Alertmanager  http://{alertmanager.address}/          amtool alert --alertmanager.url=http://{alertmanager.address}\n\n"
            "A spam filter is watched. Within two minutes its second version turns out to be poisoned; the page comes here.\n"
            "Ctrl-C ends it.\n"
        )
        ended.wait()


def shown(came: Received) -> None:
    """Print what the chat would show of a page, or the first line of a ticket."""
    width = shutil.get_terminal_size().columns - 1
    if came.path == "/chat":
        (told,) = came.body["attachments"]
        colour = "red" if came.body["attachments"][0]["color"] == "danger" else "yellow"
        click.secho(f"PAGE  {told['title']}", fg=colour, bold=True)
        for line in told["text"].splitlines():
            # A link that is broken into two lines cannot be clicked.
            link = "://" in line
            click.echo(f"{INDENT}{line}" if link else click.wrap_text(line, width, INDENT, INDENT))
    elif came.path == "/tickets":
        for alert in came.body["alerts"]:
            click.secho(f"TICKET  {alert['annotations']['summary']}", fg="yellow")


if __name__ == "__main__":
    main()
