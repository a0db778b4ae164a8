"""The demo's service, which also tells what its process has imported of greendata."""

from __future__ import annotations

import sys

from examples.legacy_app import app

__all__ = ("app",)


@app.get("/modules")
def modules() -> list[str]:
    """Return the names of the modules."""
    return sorted(name for name in sys.modules if name.partition(".")[0] == "greendata")
