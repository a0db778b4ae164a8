"""`python -m examples.demo`: compare the same service under the same load, without and with greendata."""

__all__ = ("main",)

import argparse
import contextlib
import importlib.metadata
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from examples.demo.figures import DemoError, Load, Machine
from examples.demo.picture import draw
from examples.demo.progress import Progress
from examples.demo.runner import measure
from examples.demo.table import table

# `make demo` has an environment without greendata: only the second server finds it, at the top of the source.
TOP = Path(__file__).parents[2]
VARIANTS: tuple[tuple[str, dict[str, str]], ...] = (
    ("plain", {}),
    ("greendata", {"GREENDATA_AUTOPATCH": "1", "PYTHONPATH": str(TOP)}),
)


class Stopped(Exception):
    """A signal asked the demo to end; the argument is its number."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo, and return the exit code: 0, 1 with a reason on stderr, or 128 and the signal that ended it."""
    options = parsed(arguments)
    load = Load(options.seconds, options.warmup, options.report_clients, options.ping_clients)
    try:
        with ended_by_signals() as asked:
            compare(load, asked=asked, port=options.port, picture=options.picture)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except Stopped as signalled:
        print(f"demo: stopped by {signal.Signals(signalled.args[0]).name}", file=sys.stderr)
        return 128 + int(signalled.args[0])
    return 0


def compare(load: Load, *, asked: list[int], port: int, picture: Path) -> None:
    require_greendata()
    machine = Machine.current()
    progress = Progress(sys.stdout, expected=load.warmup + load.seconds)
    print(
        f"The report service of examples/legacy_app.py under `gunicorn -k gevent`, one worker, twice: "
        f"{load.report_clients} report clients and {load.ping_clients} ping clients for {load.seconds:g} seconds each.",
        flush=True,
    )
    print(machine, flush=True)

    def tick(name: str, stage: str) -> None:
        progress.update(name, stage)
        if asked:
            raise Stopped(asked[0])

    try:
        runs = [measure(name, load, env=env, port=port, tick=partial(tick, name)) for name, env in VARIANTS]
    finally:
        progress.clear()
    picture.write_text(draw(runs, machine), encoding="utf-8")
    print(f"\n{table(*runs)}\nThe hub over time, and the queries: {picture.resolve()}")


@contextlib.contextmanager
def ended_by_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of raising anywhere, so that the server is always stopped."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    former = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def require_greendata() -> None:
    """Raise if greendata's entry point is missing: the second server would run without greendata, too."""
    found = importlib.metadata.entry_points(group="gevent.plugins.monkey.did_patch_all")
    if "greendata" not in found.names:
        raise DemoError("greendata is not installed here: `make demo` installs it, or `pip install -e .`")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    defaults = Load()
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--seconds", type=positive, default=defaults.seconds, help="seconds of load on each server")
    parser.add_argument("--warmup", type=positive, default=defaults.warmup, help="seconds of load before that")
    parser.add_argument("--report-clients", type=at_least_one, default=defaults.report_clients)
    parser.add_argument("--ping-clients", type=at_least_one, default=defaults.ping_clients)
    parser.add_argument("--port", type=port_number, default=0, help="a port on loopback (default: any free port)")
    parser.add_argument("--picture", type=Path, default=Path("demo.svg"), help="the file to write")
    return parser.parse_args(arguments)


def positive(text: str) -> float:
    number = float(text)
    if not 0.0 < number < 3600.0:
        raise argparse.ArgumentTypeError(f"got {text}, expected seconds above 0 and below 3600")
    return number


def at_least_one(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 64:
        raise argparse.ArgumentTypeError(f"got {text}, expected a count from 1 to 64")
    return number


def port_number(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError(f"got {text}, expected a port from 0 to 65535")
    return number


if __name__ == "__main__":
    sys.exit(main())
