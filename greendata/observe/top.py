"""Show the queries, the queue and the hub lag of a server in a terminal, as ``top`` does. Needs the extra ``cli``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

try:
    from rich.console import Console, Group, RenderableType
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text
except ImportError as missing:
    raise ImportError("greendata.observe.top needs rich; install it with: pip install 'greendata[cli]'") from missing

__all__ = ("follow", "frame", "show", "sparkline", "watch")

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60  # samples in a sparkline: a minute
LATE = 0.1  # seconds of lag that users notice
FAILURES = 5

Fetch = Callable[[], dict[str, Any]]


def watch(fetch: Fetch, *, interval: float, once: bool) -> None:
    """Show what *fetch* returns on the terminal: once, or every *interval* seconds until Ctrl-C."""
    console = Console()
    if once:
        show(fetch, console)
    else:
        follow(fetch, console, interval=interval)


def follow(fetch: Fetch, console: Console, *, interval: float) -> None:
    """Show what *fetch* returns every *interval* seconds until Ctrl-C. Errors of *fetch* are raised."""
    with Live(frame(fetch()), console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            live.update(frame(fetch()), refresh=True)


def show(fetch: Fetch, console: Console) -> None:
    """Print what *fetch* returns once."""
    console.print(frame(fetch()))


def frame(snapshot: dict[str, Any]) -> RenderableType:
    """Return the display of a snapshot that `greendata.observe.snapshot_json` made.

    Example:
        >>> import json
        >>> from greendata.observe import snapshot_json
        >>> console = Console(width=100)
        >>> with console.capture() as shown:
        ...     console.print(frame(json.loads(snapshot_json())))
        >>> "queue" in shown.get()
        True
    """
    return Group(_head(snapshot), _lines(snapshot), _jobs(snapshot), *_failures(snapshot))


def sparkline(values: list[float], *, top: float) -> str:
    """Return the last `WIDTH` values as bars. *top* and all values above it get the highest bar.

    Example:
        >>> sparkline([0.0, 0.5, 1.0, 7.0], top=1.0)
        '▁▄██'
    """
    steps = len(BARS) - 1
    return "".join(BARS[int(steps * min(1.0, max(0.0, value / top)))] for value in values[-WIDTH:])


def _head(snapshot: dict[str, Any]) -> Text:
    pool = snapshot["pool"]
    when = time.strftime("%H:%M:%S", time.localtime(snapshot["at"]))
    names = ("workers", "running", "queued", "abandoned", "lost", "done", "failed", "cancelled", "rejected")
    counts = "  ".join(f"{name} {pool.get(name, 0):,}" for name in names)
    return Text(f"process {snapshot['pid']} at {when}\n{counts}")


def _lines(snapshot: dict[str, Any]) -> Table:
    history, lag = snapshot["history"], snapshot["lag"]
    lags = [float(second["lag"]) for second in history]
    queues = [float(second["queued"]) for second in history]
    table = Table.grid(padding=(0, 1))
    style = "red" if lag["worst"] >= LATE else ""
    worst = f"{lag['last'] * 1000:.1f} ms, worst of the minute {lag['worst'] * 1000:.1f} ms"
    table.add_row("hub lag", Text(sparkline(lags, top=max([LATE, *lags])), style=style), worst)
    longest = max([1.0, *queues])
    table.add_row(
        "queue",
        sparkline(queues, top=longest),
        f"{snapshot['pool']['queued']:,} now, {max([0.0, *queues]):,.0f} at most",
    )
    return table


def _jobs(snapshot: dict[str, Any]) -> Table:
    table = Table("age", "label", "key", "worker", "id", title=f"{len(snapshot['jobs'])} running", title_justify="left")
    for job in snapshot["jobs"]:
        style = "dim" if job["abandoned"] else ""
        mark = " (abandoned)" if job["abandoned"] else ""
        row = (f"{job['seconds']:.1f} s", job["label"] + mark, job["key"] or "", job["worker"], job["id"])
        table.add_row(*map(_plain, row), style=style)
    return table


def _failures(snapshot: dict[str, Any]) -> list[Table]:
    failures = snapshot.get("failures", [])[:FAILURES]
    if not failures:
        return []
    table = Table("ago", "label", "error", title="last failures", title_justify="left")
    for failure in failures:
        text = f": {failure['text']}" if failure.get("text") else ""
        row = (f"{max(0.0, snapshot['at'] - failure['at']):.0f} s", failure["label"], failure["error"] + text)
        table.add_row(*map(_plain, row))
    return [table]


def _plain(text: str) -> Text:
    """Return *text* without markup and control characters: a label may contain escape codes for the terminal."""
    return Text("".join(letter if letter.isprintable() else "·" for letter in text))
