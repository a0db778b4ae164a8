"""Start-up: what greendata costs before it is used, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median

from tests.bench.rows import Row, interleaved, ratio

__all__ = ("rows",)

ROUNDS = 15
GEVENT = "import gevent.monkey, importlib.metadata"  # which patch_all imports anyway
POLARS = "import polars"
PROGRAMS = {  # by name: what is there already, and what is measured
    "polars": (GEVENT, POLARS),
    "greendata": (GEVENT, "import greendata"),
    "verb": (GEVENT, "import greendata; greendata.collect"),
    "patch": (GEVENT, "import greendata; greendata.patch_polars()"),
    "everything": (GEVENT, "from greendata import *"),
    "entry point": (GEVENT, "from greendata.monkey import autopatch; autopatch()"),
    "beside polars": (f"{GEVENT}, polars", "import greendata"),
}


def rows() -> list[Row]:
    """CPU, user and system, against that of ``import polars``; and three that must be small in themselves."""
    seconds = interleaved({name: lambda n=name: cpu_of(*PROGRAMS[n]) for name in PROGRAMS}, ROUNDS)
    found = [
        in_milliseconds("import greendata beside gevent, CPU", seconds, "greendata", 30.0),
        in_milliseconds("import greendata beside gevent and Polars, CPU", seconds, "beside polars", 30.0),
        in_milliseconds("gevent's entry point without GREENDATA_AUTOPATCH, CPU", seconds, "entry point", 10.0),
    ]
    for name, what, bound in (
        ("verb", "greendata.collect, with Polars", 1.6),
        ("patch", "greendata.patch_polars, with Polars", 1.6),
        ("everything", "every name of greendata, with Polars", 5.0),
    ):
        figure = ratio(seconds[name], seconds["polars"])
        found.append(Row(f"{what}, CPU, against import polars", *shown(seconds, name), figure, "x", bound))
    return found


def in_milliseconds(what: str, seconds: dict[str, list[float]], name: str, bound: float) -> Row:
    return Row(what, *shown(seconds, name), median(seconds[name]) * 1000, " ms", bound)


def shown(seconds: dict[str, list[float]], name: str) -> list[str]:
    return [f"{median(seconds[found]) * 1000:.3g} ms" for found in (name, "polars")]


def cpu_of(before: str, measured: str) -> float:
    """Seconds of CPU that *measured* takes after *before*. Bytecode is cached, as pip does when it installs."""
    code = f"{before}\nfrom time import process_time\nbegun = process_time()\n{measured}\nprint(process_time() - begun)"
    env = {name: value for name, value in os.environ.items() if not name.startswith("GREENDATA_")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # otherwise each round compiles greendata, but not Polars
    return float(subprocess.run([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, check=True).stdout)
