"""The picture of two runs as SVG: the silences of the hub over time, and below them the reports and the pings.

Both halves have the same scales. A silence is a bar as wide as it lasted and as high as its length, which is drawn on a
logarithmic scale. A request is a band from its sending to its response.
"""

__all__ = ("draw",)

import math
from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

from examples.demo.figures import Machine, Outcome, Run, Span

WIDTH = 960
LEFT, RIGHT = 78, 24  # margins of the plots
HEAD = 116  # above the first half
PLOT = 150  # height of the lags of one half
LANE, LANE_GAP = 11, 3
PING_LANE = 7
TITLE = 40  # above the lags of a half
FOOT = 58  # below the bands of a half: ticks and their unit
FLOOR = 0.001  # seconds; shorter silences stay on the base line
CEILING = 0.1  # seconds; the top of the scale if no silence was longer
MOST_SECONDS = 15  # labels below one half
GAP = 1.0  # units of the drawing; between one long silence and the next
NARROWEST = 1.2  # units of the drawing; a bar has at least this width

STYLE = """
.card{fill:#fff;stroke:#d5dae1} .name{fill:#1b2430;font-weight:600;font-size:16px} .text{fill:#1b2430;font-size:13px}
.mild{fill:#5b6675;font-size:12px} .grid{stroke:#e6e9ee} .base{stroke:#8b95a3}
.silence{fill:#d9480f} .query{fill:#3b7dd8} .other{fill:#9bbdee} .ping{fill:#2b8a3e}
@media (prefers-color-scheme: dark){
.card{fill:#151a21;stroke:#36404d} .name,.text{fill:#e8ecf1} .mild{fill:#9aa6b5} .grid{stroke:#2a323d}
.base{stroke:#6b7686} .silence{fill:#ff7a45} .query{fill:#5b9bf0} .other{fill:#3a5f92} .ping{fill:#51cf66}}
"""


def draw(runs: Sequence[Run], machine: Machine, *, title: str = "One gevent worker, the same load twice") -> str:
    """Return an SVG document with one part for each of `runs`, from the top, which says what `machine` they ran on.

    Raises:
        ValueError: there is no run to draw.
    """
    if not runs:
        raise ValueError("no runs: expected one at least")
    scale = Scale(runs)
    parts = [legend(title, machine)]
    top = HEAD
    for run in runs:
        parts.append(f'<g transform="translate(0 {top})">{half(run, scale)}</g>')
        top += TITLE + PLOT + lanes_height(run.outcome) + FOOT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" '
        f'font-family="system-ui, Segoe UI, Helvetica, Arial, DejaVu Sans, sans-serif" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n"
        f'<rect class="card" x=".5" y=".5" width="{WIDTH - 1}" height="{top - 1}" rx="10"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


class Scale:
    """Convert seconds to units of the drawing, by the same scale for every part."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.seconds = max(run.outcome.seconds for run in runs)
        self.ceiling = next_step(max([CEILING, *(run.longest_silence for run in runs)]))

    def x(self, seconds: float) -> float:
        """Return the distance from the left edge; times outside the window are drawn at its border."""
        share = min(max(seconds / self.seconds, 0.0), 1.0)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, silence: float) -> float:
        """Return the distance from the top of the plot."""
        height = math.log(max(silence, FLOOR) / FLOOR) / math.log(self.ceiling / FLOOR)
        return PLOT * (1.0 - height)


def half(run: Run, scale: Scale) -> str:
    """Draw one run: its name and figures, the grid, the lags, the bands, and the seconds below."""
    reports = run.outcome.reports_per_second
    summary = f"longest silence {duration(run.longest_silence)}, {reports:.2f} reports a second"
    if run.outcome.pings:
        summary = f"ping p99 {duration(run.outcome.ping_seconds(0.99))}, {summary}"
    below = PLOT + report_height(run.outcome)
    return "\n".join(
        [
            f'<text class="name" x="{LEFT}" y="24">{escape(run.name)}</text>',
            f'<text class="text" x="{WIDTH - RIGHT}" y="24" text-anchor="end">{summary}</text>',
            f'<g transform="translate(0 {TITLE})">',
            grid(scale, PLOT + lanes_height(run.outcome)),
            f'<path class="silence" d="{bars(run, scale)}"/>',
            f'<line class="base" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{PLOT}" y2="{PLOT}"/>',
            f'<g transform="translate(0 {PLOT})">{reports_of(run.outcome, scale)}</g>',
            f'<g transform="translate(0 {below})">{pings_of(run.outcome, scale)}</g>',
            "</g>",
        ]
    )


def bars(run: Run, scale: Scale) -> str:
    """Draw every silence of the window as one path of boxes."""
    boxes = []
    for silence in run.silences:
        if silence.seconds <= FLOOR or silence.woke <= run.outcome.began or silence.due >= run.outcome.ended:
            continue
        left = scale.x(silence.due - run.outcome.began)
        right = max(scale.x(silence.woke - run.outcome.began) - GAP, left + NARROWEST)
        boxes.append(f"M{left:.1f} {PLOT}V{scale.y(silence.seconds):.1f}H{right:.1f}V{PLOT}Z")
    return "".join(boxes)


def reports_of(outcome: Outcome, scale: Scale) -> str:
    """Draw every report in one lane per client; neighbours differ in shade."""
    seen: dict[int, int] = {}
    shapes = [lane_name("reports", report_height(outcome))]
    for report in outcome.reports:
        nth = seen[report.client] = seen.get(report.client, 0) + 1
        left, right = (scale.x(moment - outcome.began) for moment in (report.began, report.ended))
        top = LANE_GAP + report.client * (LANE + LANE_GAP)
        shapes.append(
            f'<rect class="{"query" if nth % 2 else "other"}" x="{left:.1f}" y="{top}" '
            f'width="{max(right - left - 1, 1):.1f}" height="{LANE}" rx="2"/>'
        )
    return "\n".join(shapes)


def pings_of(outcome: Outcome, scale: Scale) -> str:
    """Draw every ping in one lane per client, as one path."""
    boxes = []
    for ping in outcome.pings:
        left, right = (scale.x(moment - outcome.began) for moment in (ping.began, ping.ended))
        top = LANE_GAP + ping.client * (PING_LANE + LANE_GAP)
        boxes.append(f"M{left:.1f} {top}h{max(right - left - GAP, NARROWEST / 2):.1f}v{PING_LANE}H{left:.1f}Z")
    return f'{lane_name("pings", ping_height(outcome))}<path class="ping" d="{"".join(boxes)}"/>'


def lane_name(name: str, height: int) -> str:
    return f'<text class="mild" x="{LEFT - 8}" y="{height / 2 + 6:.0f}" text-anchor="end">{name}</text>'


def report_height(outcome: Outcome) -> int:
    return LANE_GAP + clients(outcome.reports) * (LANE + LANE_GAP)


def ping_height(outcome: Outcome) -> int:
    return LANE_GAP + clients(outcome.pings) * (PING_LANE + LANE_GAP)


def lanes_height(outcome: Outcome) -> int:
    return report_height(outcome) + ping_height(outcome)


def clients(spans: Sequence[Span]) -> int:
    return 1 + max((span.client for span in spans), default=0)


def grid(scale: Scale, bottom: float) -> str:
    """Draw lines and labels: lengths of silence at the left, seconds of the run below."""
    shapes = []
    for silence in decades(scale.ceiling):
        y = scale.y(silence)
        shapes.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        shapes.append(f'<text class="mild" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{duration(silence)}</text>')
    step = max(1, math.ceil(scale.seconds / MOST_SECONDS))
    for second in range(0, math.floor(scale.seconds) + 1, step):
        x = scale.x(second)
        shapes.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom + 5}"/>')
        shapes.append(f'<text class="mild" x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{second} s</text>')
    return "\n".join(shapes)


def legend(title: str, machine: Machine) -> str:
    reports, pings = LEFT + 390, LEFT + 610
    return "\n".join(
        [
            f'<text class="name" style="font-size:19px" x="{LEFT}" y="38">{escape(title)}</text>',
            f'<text class="mild" x="{LEFT}" y="60">{machine}</text>',
            f'<rect class="silence" x="{LEFT}" y="80" width="14" height="12"/>',
            f'<text class="text" x="{LEFT + 20}" y="91">hub lag: how long nothing else could run (log scale)</text>',
            f'<rect class="query" x="{reports}" y="80" width="14" height="12" rx="2"/>',
            f'<rect class="other" x="{reports + 16}" y="80" width="14" height="12" rx="2"/>',
            f'<text class="text" x="{reports + 36}" y="91">reports, one lane per client</text>',
            f'<rect class="ping" x="{pings}" y="80" width="14" height="12"/>',
            f'<text class="text" x="{pings + 20}" y="91">pings, from request to response</text>',
        ]
    )


def next_step(silence: float) -> float:
    """Return the first of 1, 2, 5, 10, 20, ... milliseconds that is not less than `silence`."""
    decade = 10.0 ** math.floor(math.log10(silence))
    return next(step * decade for step in (1, 2, 5, 10) if step * decade >= silence * 0.999999)


def decades(ceiling: float) -> Iterable[float]:
    """Yield the bottom of the scale and each power of ten times it, up to `ceiling`."""
    count = math.floor(math.log10(ceiling / FLOOR) + 1e-9) + 1
    return (FLOOR * 10**power for power in range(count))


def duration(seconds: float) -> str:
    """Format seconds: `840 us`, `2.1 ms`, `12 ms`, `1.9 s`.

    >>> duration(0.0021), duration(1.87)
    ('2.1 ms', '1.9 s')
    """
    for limit, factor, unit in ((0.001, 1e6, "us"), (1.0, 1e3, "ms"), (math.inf, 1.0, "s")):
        if seconds < limit:
            number = seconds * factor
            return f"{number:.0f} {unit}" if number >= 9.95 or number == round(number) else f"{number:.1f} {unit}"
    return "forever"
