"""A row of the bench's table, and how a ratio is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

__all__ = ("Row", "interleaved", "rate_row", "ratio", "table")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: what it is, what came out, and what it must reach."""

    what: str
    ours: str
    peer: str
    figure: float  # a ratio, or the figure itself
    unit: str  # "x" for ratios
    bound: float
    at_most: bool = True

    @property
    def reached(self) -> bool:
        return self.figure <= self.bound if self.at_most else self.figure >= self.bound


def interleaved(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The figures of every contender, round by round, each round beginning with another one."""
    names = list(contenders)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for offset in range(len(names)):
            name = names[(number + offset) % len(names)]
            figures[name].append(contenders[name]())
    return figures


def ratio(ours: list[float], peer: list[float]) -> float:
    """The median of the rounds' ratios: what disturbs one round disturbs both sides of it."""
    return median(mine / theirs for mine, theirs in zip(ours, peer, strict=True))


def rate_row(what: str, rates: Mapping[str, list[float]], peer: str, bound: float) -> Row:
    """How often a second, ours (``greendata``) against *peer*: at least *bound* times as often."""
    shown = [f"{median(rates[name]):.3g} /s" for name in ("greendata", peer)]
    return Row(what, *shown, ratio(rates["greendata"], rates[peer]), "x", bound, at_most=False)


def table(rows: list[Row]) -> str:
    """The rows as text, in columns."""
    cells = [("what", "greendata", "peer", "figure", "must reach", "")]
    for row in rows:
        figure = f"{row.figure:.3g}{row.unit}"
        bound = f"{'<=' if row.at_most else '>='} {row.bound:g}{row.unit}"
        cells.append((row.what, row.ours, row.peer, figure, bound, "reached" if row.reached else "NOT REACHED"))
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])
