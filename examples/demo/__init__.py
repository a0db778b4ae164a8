"""The parts of the demo, also used by the benchmarks: a server, a load, the measurements and their picture."""

__all__ = (
    "DemoError",
    "Load",
    "Machine",
    "Outcome",
    "Run",
    "Server",
    "Silence",
    "Span",
    "draw",
    "drive",
    "drive_elsewhere",
    "measure",
    "serving",
    "table",
)

from examples.demo.figures import DemoError, Load, Machine, Outcome, Run, Silence, Span
from examples.demo.load import drive, drive_elsewhere
from examples.demo.picture import draw
from examples.demo.runner import measure
from examples.demo.server import Server, serving
from examples.demo.table import table
