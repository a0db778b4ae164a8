"""The figures of two runs side by side, as text."""

__all__ = ("table",)

from collections.abc import Callable

from examples.demo.figures import Run

ROWS: tuple[tuple[str, str, Callable[[Run], float]], ...] = (
    ("ping p50", "{:,.1f} ms", lambda run: run.outcome.ping_seconds(0.5) * 1000),
    ("ping p99", "{:,.1f} ms", lambda run: run.outcome.ping_seconds(0.99) * 1000),
    ("ping worst", "{:,.1f} ms", lambda run: run.outcome.ping_seconds(1.0) * 1000),
    ("pings", "{:,}   ", lambda run: len(run.outcome.pings)),
    ("reports a second", "{:.2f}   ", lambda run: run.outcome.reports_per_second),
    ("longest silence of the hub", "{:,.1f} ms", lambda run: run.longest_silence * 1000),
)
LABEL = 29  # columns
COLUMN = 16


def table(plain: Run, green: Run) -> str:
    """Return a line for each figure: of the first run, of the second, and the ratio of the second to the first.

    Raises:
        ValueError: one of the runs has no responses to pings.
    """
    lines = [line("", plain.name, green.name, "ratio"), "-" * (LABEL + 3 * COLUMN)]
    for label, shape, figure in ROWS:
        one, other = figure(plain), figure(green)
        lines.append(line(label, shape.format(one), shape.format(other), ratio(one, other)))
    return "\n".join(lines) + "\n"


def line(label: str, one: str, other: str, last: str) -> str:
    return f"{label:<{LABEL}}{one:>{COLUMN}}{other:>{COLUMN}}{last:>{COLUMN}}"


def ratio(one: float, other: float) -> str:
    return f"{other / one:.3g}x" if one else "-"
