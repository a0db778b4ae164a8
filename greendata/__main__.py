"""The command line: ``python -m greendata doctor | top | demo | bench``."""

from __future__ import annotations

import argparse
import importlib
import json
import runpy
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from greendata.errors import GreenDataError, NoCheckout, NotImportable

SOURCE = Path(__file__).resolve().parents[1]
PARTS = {"demo": "examples.demo", "bench": "tests.bench"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code: 0, 1 if the doctor found a failure, or 2 with a reason on stderr."""
    options, rest = _parser().parse_known_args(arguments)
    if rest and options.command not in PARTS:
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return int(options.run(options, rest) or 0)
    except (GreenDataError, ImportError) as error:
        print(f"greendata {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m greendata", description="Polars for greenlets: diagnostics.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="doctor | top | demo | bench")
    doctor = commands.add_parser("doctor", help="examine this process: the patches, their order, the pool")
    doctor.add_argument("module", nargs="?", help="a module to import first, also as for gunicorn: service:app")
    doctor.add_argument("--gevent", action="store_true", help="patch first, as a worker of gunicorn -k gevent does")
    doctor.add_argument("--workers", type=_count, help="server processes on this machine (default: WEB_CONCURRENCY)")
    doctor.add_argument("--strict", action="store_true", help="exit with 1 if there is a warning, too")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(run=_doctor)
    top = commands.add_parser("top", help="watch a server: its queries, its queue, the lag of its hub")
    top.add_argument("address", help="the URL of the server's snapshot, or the path of its Unix socket")
    top.add_argument("--header", action="append", default=[], type=_header, metavar="NAME:VALUE", help="a header")
    top.add_argument("--interval", type=_seconds, default=1.0, help="seconds between two snapshots (default: 1)")
    top.add_argument("--once", action="store_true", help="print one snapshot and exit")
    top.set_defaults(run=_top)
    for name in PARTS:
        text = f"run the {name} in a checkout of the source, with its own arguments"
        commands.add_parser(name, help=text, add_help=False).set_defaults(run=_part)
    return parser


def _doctor(options: argparse.Namespace, _rest: list[str]) -> int:
    if options.gevent:
        importlib.import_module("gevent.monkey").patch_all()
    # Imported here, because they import ssl, Polars and others, which come after the patch.
    doctor = importlib.import_module("greendata.observe.doctor")
    imported = None
    if options.module:
        sys.path.insert(0, "")
        with doctor.watched(options.module) as imported:
            _import(options.module)
    findings = doctor.examine(workers=options.workers, imported=imported)
    failed = doctor.has_failures(findings, strict=options.strict)
    if options.json:
        print(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        print(doctor.report(findings))
    return int(failed)


def _import(target: str) -> None:
    """Import what *target* names as gunicorn does: ``module``, ``module:app`` or ``module:make_app()``.

    Raises:
        NotImportable: the import, or the call of ``make_app``, raised; or the module has no such name.
    """
    module, _, path = target.partition(":")
    name, _, call = path.partition("(")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split(".") if name else ():
            found = getattr(found, part)
        if call.strip() == ")":
            found()  # a factory of the app, which may run queries
    except Exception as error:
        raise NotImportable(target, error) from error


def _top(options: argparse.Namespace, _rest: list[str]) -> None:
    top = importlib.import_module("greendata.observe.top")  # requires the extra `cli`, unlike the doctor
    fetch = importlib.import_module("greendata.observe.client").fetch
    snapshot = partial(fetch, options.address, dict(options.header))
    top.watch(snapshot, interval=options.interval, once=options.once)


def _part(options: argparse.Namespace, rest: list[str]) -> None:
    module = PARTS[options.command]
    if not SOURCE.joinpath(*module.split("."), "__main__.py").is_file():
        raise NoCheckout(options.command, SOURCE)
    sys.path.insert(0, str(SOURCE))
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number >= 1")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.1 <= number <= 3600.0:
        raise argparse.ArgumentTypeError(f"got {text}, expected seconds from 0.1 to 3600")
    return number


def _header(text: str) -> tuple[str, str]:
    header_of: Callable[[str], tuple[str, str]] = importlib.import_module("greendata.observe.client").header_of
    try:
        return header_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected NAME:VALUE") from error


if __name__ == "__main__":
    sys.exit(main())
