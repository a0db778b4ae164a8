"""``flask greendata status | doctor | top``: commands in the environment of an app."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial

import click
from flask import current_app
from flask.cli import AppGroup

from greendata.errors import GreenDataError
from greendata.observe.client import fetch, header_of
from greendata.observe.doctor import Import, examine, has_failures, report
from greendata.pool import pool
from greendata.query.patching.fork_guard import polars_has_run
from greendata.query.patching.patch import is_polars_patched

__all__ = ("commands", "doctor", "status", "top")

commands = AppGroup("greendata", help="Polars for greenlets: show settings, examine the process, watch a server.")


@commands.command()
def status() -> None:
    """Print the settings of this app and of the pool."""
    settings = {name: value for name, value in current_app.config.items() if name.startswith("GREENDATA_")}
    settings |= {f"pool {name}": value for name, value in asdict(pool.shared.settings).items()}
    settings["Polars patched"] = is_polars_patched()
    width = max(map(len, settings))
    for name, value in sorted(settings.items()):
        click.echo(f"{name:{width}}  {value}")


@commands.command()
@click.option("--workers", type=click.IntRange(1), help="Server processes on this machine.")
@click.option("--strict", is_flag=True, help="Exit with 1 if there is a warning, too.")
def doctor(workers: int | None, *, strict: bool) -> None:
    """Examine this process with the app imported; exit code 1 if something is wrong."""
    imported = Import(current_app.import_name, has_run_query=polars_has_run())  # nothing else has run a query so far
    findings = examine(workers=workers, imported=imported)
    click.echo(report(findings))
    sys.exit(has_failures(findings, strict=strict))


@commands.command()
@click.argument("address")
@click.option("--interval", type=click.FloatRange(0.1, 3600.0), default=1.0, help="Seconds between two snapshots.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="A header of the requests.")
@click.option("--once", is_flag=True, help="Print one snapshot and exit.")
def top(address: str, interval: float, headers: tuple[str, ...], *, once: bool) -> None:
    """Watch the server at ADDRESS, the URL or Unix socket of its snapshot."""
    from greendata.observe import top as display  # requires the extra `cli`, unlike the other commands

    try:
        given = dict(map(header_of, headers))
        display.watch(partial(fetch, address, given), interval=interval, once=once)
    except GreenDataError as error:
        raise click.ClickException(str(error)) from error
