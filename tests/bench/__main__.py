"""``make bench``: measure everything and print one table. Names of parts as arguments measure just these."""

from __future__ import annotations

import sys
from importlib import import_module

import gevent

from tests.bench.rows import Row, table

PARTS = (
    "start",
    "tiny",
    "heavy",
    "jobs",
    "stages",
    "callers",
    "sql",
    "validation",
    "formats",
    "typed",
    "http",
    "web",
    "load",
    "engines",
    "ray",
    "crawl",
)


def main(chosen: list[str]) -> None:
    unknown = sorted(set(chosen) - set(PARTS))
    if unknown:
        sys.exit(f"no part of the bench: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    gevent.get_hub()
    found: list[Row] = []
    for part in chosen or PARTS:
        print(f"measuring {part} ...", file=sys.stderr, flush=True)
        found += import_module(f"tests.bench.{part}").rows()
    print(table(found))


if __name__ == "__main__":
    main(sys.argv[1:])
