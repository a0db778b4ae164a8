"""A progress line of the demo: redrawn in place on a terminal, a few plain lines elsewhere."""

__all__ = ("Progress",)

import time
from typing import TextIO

WIDTH = 28  # columns of the bar
REDRAW = 0.1  # seconds between two drawings on a terminal


class Progress:
    """Receive the state many times a second, and print it less often."""

    def __init__(self, stream: TextIO, *, expected: float) -> None:
        self.stream = stream
        self.expected = expected  # seconds that loading takes
        self.drawn = 0.0
        self.said: tuple[str, str] | None = None
        self.stage_began = 0.0

    def update(self, name: str, stage: str) -> None:
        """Show that the run `name` is at `stage`."""
        now = time.monotonic()
        if self.said != (name, stage):
            self.said = (name, stage)
            self.stage_began = now
            self.drawn = 0.0
            if not self.stream.isatty():
                print(f"{name}: {stage}", file=self.stream, flush=True)
        if self.stream.isatty() and now - self.drawn >= REDRAW:
            self.drawn = now
            self.stream.write(f"\r\x1b[K{name}: {stage}{self.bar(now)}")
            self.stream.flush()

    def clear(self) -> None:
        """Clear the line, so that other text can follow."""
        if self.stream.isatty():
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def bar(self, now: float) -> str:
        if self.said is None or self.said[1] != "loading":
            return ""
        share = min((now - self.stage_began) / self.expected, 1.0)
        full = round(share * WIDTH)
        return f" [{'#' * full}{'.' * (WIDTH - full)}] {share * self.expected:.1f} of {self.expected:.1f} s"
