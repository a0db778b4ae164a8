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

from greendata.observe.histogram import BOUNDS

__all__ = ("follow", "frame", "show", "sparkline", "watch")

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60  # samples in a sparkline: a minute
LATE = 0.1  # seconds of lag that users notice
FAILURES = 5
QUEUE = 5
ROWS = 10  # labels

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
    return Group(
        _head(snapshot), _lines(snapshot), _jobs(snapshot), *_queue(snapshot), *_labels(snapshot), *_failures(snapshot)
    )


def sparkline(values: list[float], *, top: float) -> str:
    """Return the last `WIDTH` values as bars. *top* and all values above it get the highest bar.

    Example:
        >>> sparkline([0.0, 0.5, 1.0, 7.0], top=1.0)
        '▁▄██'
    """
    steps = len(BARS) - 1
    return "".join(BARS[int(steps * min(1.0, max(0.0, value / top)))] for value in values[-WIDTH:])


def _head(snapshot: dict[str, Any]) -> Text:
    pool, queries = snapshot["pool"], snapshot["queries"]
    when = time.strftime("%H:%M:%S", time.localtime(snapshot["at"]))
    of_queries = _counts(queries, "running", "queued", "done", "failed", "cancelled")
    of_pool = _counts(pool, "workers", "abandoned", "lost", "rejected")
    internal = f"internal jobs {queries['internal_jobs']:,}"
    return Text(f"process {snapshot['pid']} at {when}\nqueries: {of_queries}\npool: {of_pool}  {internal}")


def _counts(found: dict[str, int], *names: str) -> str:
    return "  ".join(f"{name} {found.get(name, 0):,}" for name in names)


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
    title = f"{snapshot['queries']['running']} running"
    table = Table("age", "label", "key", "worker", "id", title=title, title_justify="left")
    for job in snapshot["jobs"]:
        style = "dim" if job["abandoned"] or job["internal"] else ""
        row = (f"{job['seconds']:.1f} s", _name(job), job["key"] or "", job["worker"], job["id"])
        table.add_row(*map(_plain, row), style=style)
    return table


def _queue(snapshot: dict[str, Any]) -> list[Table]:
    """Return a table of the waiting jobs that were submitted first."""
    queue = [job for job in snapshot["queue"] if not job["internal"]]
    if not queue:
        return []
    title = f"{snapshot['queries']['queued']:,} waiting, those that were submitted first"
    table = Table("waits", "label", "key", title=title, title_justify="left")
    for job in queue[:QUEUE]:
        table.add_row(*map(_plain, (f"{job['seconds']:.1f} s", _name(job), job["key"] or "")))
    return [table]


def _labels(snapshot: dict[str, Any]) -> list[Table]:
    """Return a table of the labels that took most of the workers' time, with their quantiles."""
    rows = snapshot["by_label"][:ROWS]
    if not rows:
        return []
    table = Table("label", title="by label, with 95 % within", title_justify="left")
    for name in ("done", "failed", "cancelled", "run", "wait"):
        table.add_column(name, justify="right")
    for row in rows:
        counts = (f"{row[name]:,}" for name in ("done", "failed", "cancelled"))
        table.add_row(_plain(row["label"]), *counts, _seconds(row["run"][1]), _seconds(row["wait"][1]))
    return [table]


def _name(job: dict[str, Any]) -> str:
    marks = [mark for mark in ("abandoned", "internal") if job.get(mark)]
    origin = f" {job['origin']}" if job["origin"] else ""
    return str(job["label"]) + origin + (f" ({', '.join(marks)})" if marks else "")


def _seconds(value: float | None) -> str:
    if value is None:
        return f"> {BOUNDS[-1]:g} s"
    return f"{value * 1000:g} ms" if value < 1.0 else f"{value:g} s"


def _failures(snapshot: dict[str, Any]) -> list[Table]:
    failures = snapshot.get("failure_groups", [])[:FAILURES]
    if not failures:
        return []
    table = Table("ago", "label", "error", title="last failures", title_justify="left")
    for failure in failures:
        text = f": {failure['text']}" if failure.get("text") else ""
        times = f" ({failure['count']} times)" if failure["count"] > 1 else ""
        row = (f"{max(0.0, snapshot['at'] - failure['at']):.0f} s", failure["label"], failure["error"] + times + text)
        table.add_row(*map(_plain, row))
    return [table]


def _plain(text: str) -> Text:
    """Return *text* without markup and control characters: a label may contain escape codes for the terminal."""
    return Text("".join(letter if letter.isprintable() else "·" for letter in text))
