"""``flask greendata status``: what the extension and the pool are set to, as the app's own environment has it."""

from __future__ import annotations

from dataclasses import asdict

import click
from flask import current_app
from flask.cli import AppGroup

from greendata.frames.patch import is_polars_patched
from greendata.hub import pool

__all__ = ("commands", "status")

commands = AppGroup("greendata", help="Polars for greenlets: settings and state.")


@commands.command()
def status() -> None:
    """Print the settings of this app and of the pool."""
    settings = {name: value for name, value in current_app.config.items() if name.startswith("GREENDATA_")}
    settings |= {f"pool {name}": value for name, value in asdict(pool.shared.settings).items()}
    settings["Polars patched"] = is_polars_patched()
    width = max(map(len, settings))
    for name, value in sorted(settings.items()):
        click.echo(f"{name:{width}}  {value}")
