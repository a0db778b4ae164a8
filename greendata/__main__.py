"""The command line: ``python -m greendata doctor | top | crawl | demo | bench``."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import ipaddress
import json
import runpy
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from greendata.errors import BadArgument, GreenDataError, NoCheckout, NotImportable
from greendata.errors.plural import counted

T = TypeVar("T")

SOURCE = Path(__file__).resolve().parents[1]
PARTS = {"demo": "examples.demo", "bench": "tests.bench"}
LINE_EVERY = 10.0  # seconds between two lines about a crawl, where there is no terminal
CRAWL_EPILOG = """
exit codes: 0: the crawl has reached its end, or --max-pages; 1: it has, and no host has responded; 2: it could not
begin or continue, with the reason on stderr; 130 and 143: it was interrupted (Ctrl-C, SIGTERM). After 2, 130 and 143
the same command with --resume continues.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code.

    0: it has done its work. 1: the doctor has found a failure, or a crawl has ended without a single response. 2: it
    cannot do its work, with the reason on stderr; a crawl can be resumed then. 130: it was interrupted with Ctrl-C, and
    143: it was terminated; a crawl has stored what was finished, and can be resumed.
    """
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
    parser = argparse.ArgumentParser(prog="python -m greendata", description="Polars for greenlets.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="doctor | top | crawl | demo | bench")
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
    _add_crawl(commands.add_parser("crawl", help="crawl sites into a folder of Parquet files", epilog=CRAWL_EPILOG))
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
        NotImportable: the import, or the call of ``make_app``, raised, or ended the process; or the module has no such
            name.
    """
    module, _, path = target.partition(":")
    name, _, call = path.partition("(")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split(".") if name else ():
            found = getattr(found, part)
        if call.strip() == ")":
            found()  # a factory of the app, which may run queries
    except (Exception, SystemExit) as error:  # a script may call sys.exit when it is imported
        raise NotImportable(target, error) from error


def _top(options: argparse.Namespace, _rest: list[str]) -> None:
    top = importlib.import_module("greendata.observe.top")  # requires the extra `cli`, unlike the doctor
    fetch = importlib.import_module("greendata.observe.client").fetch
    snapshot = partial(fetch, options.address, dict(options.header))
    top.watch(snapshot, interval=options.interval, once=options.once)


def _add_crawl(crawl: argparse.ArgumentParser) -> None:
    crawl.add_argument("urls", nargs="+", metavar="URL", help="where the crawl begins")
    crawl.add_argument("--out", required=True, metavar="DIR", help="the folder of the Parquet files")
    who = 'who is asking, and where to reach you: "examplebot/1.0 (bots@example.com)"'
    crawl.add_argument("--user-agent", required=True, metavar="UA", help=who)
    crawl.add_argument("--follow", action="store_true", help="follow links")
    crawl.add_argument("--scope", choices=("site", "host", "any"), default="site", help="which links (default: site)")
    crawl.add_argument("--depth", type=_natural, metavar="N", help="how many links away from a URL a page may be")
    crawl.add_argument("--sitemap", action="store_true", help="begin at the pages of the sitemaps, too")
    crawl.add_argument("--per-host", type=_count, metavar="N", help="requests to one host at one time")
    crawl.add_argument("--delay", type=float, metavar="SECONDS", help="seconds between two requests to one host")
    crawl.add_argument("--max-pages", type=_natural, metavar="N", help="rows at which the crawl ends")
    crawl.add_argument("--max-bytes", type=_count, metavar="N", help="decoded bytes of a page that are kept")
    crawl.add_argument("--columns", type=lambda text: text.split(","), metavar="A,B", help="the columns to keep")
    again = crawl.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue the crawl in DIR; without one, begin it")
    again.add_argument("--again", action="store_true", help="as --resume; if it has ended, fetch all of it once more")
    allowed = "a private address, network or name to allow, such as 10.1.0.0/16; may be repeated"
    crawl.add_argument("--allow-private", action="append", default=[], metavar="HOST", help=allowed)
    crawl.set_defaults(run=_crawl)


def _crawl(options: argparse.Namespace, _rest: list[str]) -> int:
    crawl = importlib.import_module("greendata.crawl").crawl  # requires the extra `crawl`
    names = ("out", "user_agent", "follow", "scope", "depth", "resume", "again", "columns", "max_pages")
    given = {name: getattr(options, name) for name in names}
    given |= {
        name: found for name in ("per_host", "delay", "max_bytes") if (found := getattr(options, name)) is not None
    }
    given |= {"sitemaps": options.sitemap, "allow_private": _addresses_of(options.allow_private)}
    stage = crawl(options.urls, **given, progress="crawl" if _shows_bars() else None)
    lines = None if _shows_bars() else importlib.import_module("gevent").spawn(_print_lines, stage.stats)
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        stage.run()
    except SystemExit as stopped:
        command = " ".join(["python -m greendata crawl", *map(shlex.quote, _arguments_of(sys.argv[1:]))])
        print(f"\nstopped after {_line(stage.stats())}\nto continue: {command}", file=sys.stderr)
        return int(stopped.code or 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if lines is not None:
            lines.kill()
    stats = stage.stats()
    print(f"done: {_line(stats)}", file=sys.stderr)
    for name, pages in {**stats.statuses, **stats.errors}.items():
        print(f"{pages:>10}  {name}", file=sys.stderr)
    return int(stats.pages > 0 and not stats.statuses)


def _stop(number: int, _frame: object) -> None:
    """Raise in the main greenlet. gevent's hub shows no traceback of a `SystemExit`."""
    raise SystemExit(128 + number)


def _arguments_of(arguments: list[str]) -> list[str]:
    """Return the arguments of this command that continue the crawl."""
    rest = arguments[arguments.index("crawl") + 1 :]
    return rest if "--resume" in rest or "--again" in rest else [*rest, "--resume"]


def _addresses_of(hosts: list[str]) -> list[str]:
    """Return the addresses and networks of *hosts*, which may also be names."""
    addresses = []
    for host in hosts:
        try:
            addresses.append(str(ipaddress.ip_network(host)))
        except ValueError:
            try:
                addresses += sorted({str(found[4][0]) for found in socket.getaddrinfo(host, None)})
            except OSError as error:
                raise BadArgument(
                    "--allow-private", host, "an address, a network or a name that can be found"
                ) from error
    return addresses


def _shows_bars() -> bool:
    return sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None


def _print_lines(stats: Callable[[], Any]) -> None:
    sleep = importlib.import_module("gevent").sleep
    while True:
        sleep(LINE_EVERY)
        print(_line(stats()), file=sys.stderr, flush=True)


def _line(stats: Any) -> str:
    todo = "" if stats.todo is None else f", {stats.todo} to do"
    return (
        f"{counted(stats.pages, 'page')}{todo}, {stats.bytes / 1e6:.1f} MB, {counted(stats.failed, 'error')}, "
        f"{counted(stats.hosts_waiting, 'host waits', 'hosts wait')}, {stats.pages_per_second:.1f} pages/s"
    )


def _part(options: argparse.Namespace, rest: list[str]) -> None:
    module = PARTS[options.command]
    if not SOURCE.joinpath(*module.split("."), "__main__.py").is_file():
        raise NoCheckout(options.command, SOURCE)
    sys.path.insert(0, str(SOURCE))
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _count(text: str) -> int:
    return _checked(int, text, lambda number: number >= 1, "a whole number >= 1")


def _natural(text: str) -> int:
    return _checked(int, text, lambda number: number >= 0, "a whole number >= 0")


def _seconds(text: str) -> float:
    return _checked(float, text, lambda number: 0.1 <= number <= 3600.0, "seconds from 0.1 to 3600")


def _checked(kind: Callable[[str], T], text: str, is_right: Callable[[T], bool], expected: str) -> T:
    with suppress(ValueError):
        if is_right(number := kind(text)):
            return number
    raise argparse.ArgumentTypeError(f"got {text}, expected {expected}")


def _header(text: str) -> tuple[str, str]:
    header_of: Callable[[str], tuple[str, str]] = importlib.import_module("greendata.observe.client").header_of
    try:
        return header_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected NAME:VALUE") from error


if __name__ == "__main__":
    sys.exit(main())
