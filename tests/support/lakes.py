"""Tables for which Polars calls Python on its own threads, scanned by several greenlets at once.

``python -m tests.support.lakes delta patch`` patches its process and scans by plain Polars, with ``verbs`` by
greendata's; it prints how many greenlets came to their end.
"""

from __future__ import annotations

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()

import io
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import gevent
import polars as pl
import requests
from gevent.pywsgi import WSGIServer

import greendata

__all__ = ("TABLES",)

GREENLETS = 6
ROUNDS = 3

Scan = Callable[[], pl.LazyFrame]


def delta(folder: str) -> tuple[Scan, int]:
    """Make a Delta table of several files."""
    pl.DataFrame({"a": range(700), "part": [n % 7 for n in range(700)]}).write_delta(
        folder, delta_write_options={"partition_by": ["part"]}
    )
    return lambda: pl.scan_delta(folder), 700


def iceberg(folder: str) -> tuple[Scan, int]:
    """Make an Iceberg table with deleted rows."""
    from pyiceberg.catalog.sql import SqlCatalog

    rows = pl.DataFrame({"a": range(100)}).to_arrow()
    catalog = SqlCatalog("tests", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")
    catalog.create_namespace("tests")
    table = catalog.create_table("tests.rows", schema=rows.schema)
    for _ in range(3):
        table.append(rows)
    table.delete("a < 10")
    return lambda: pl.scan_iceberg(table), 270


def bucket(_folder: str) -> tuple[Scan, int]:
    """Serve a file from an object store in this process; the function for its keys uses a lock, a log and a session."""
    written = io.BytesIO()
    pl.DataFrame({"a": range(1000)}).write_parquet(written)
    data = written.getvalue()

    def answer(environ: dict[str, Any], start: Any) -> list[bytes]:
        first, last = 0, len(data)
        if wanted := environ.get("HTTP_RANGE", "").removeprefix("bytes="):
            begin, _, end = wanted.partition("-")
            first, last = (int(begin), int(end) + 1) if begin else (max(0, last - int(end)), last)
        part = b"a key" if environ["PATH_INFO"] == "/key" else data[first:last]
        headers = [
            ("Content-Range", f"bytes {first}-{last - 1}/{len(data)}"),
            ("Last-Modified", _DATE),
            ("ETag", '"1"'),
        ]
        start("206 Partial Content" if wanted else "200 OK", [*headers, ("Content-Length", str(len(part)))])
        return [part]

    server = WSGIServer(("127.0.0.1", 0), answer, log=None)
    server.start()
    address = f"http://127.0.0.1:{server.server_port}"
    asking, session, log = threading.RLock(), requests.Session(), logging.getLogger("keys")
    log.addHandler(logging.FileHandler(os.devnull))

    def credentials() -> Any:
        with asking:
            log.warning("asked for a key")
            time.sleep(0.001)
            key = session.get(f"{address}/key", timeout=20).text
        return {"aws_access_key_id": key, "aws_secret_access_key": "secret"}, int(time.time())

    options = {"aws_endpoint_url": address, "aws_allow_http": "true", "aws_region": "us-east-1"}
    return lambda: pl.scan_parquet("s3://b/x.parquet", credential_provider=credentials, storage_options=options), 1000


_DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
TABLES: dict[str, Callable[[str], tuple[Scan, int]]] = {"delta": delta, "iceberg": iceberg, "bucket": bucket}


def main(table: str, way: str) -> None:
    """Scan the table in several greenlets, by plain Polars under the patch or by the verbs."""
    if way == "patch":
        greendata.patch_polars()
    with tempfile.TemporaryDirectory() as folder:
        scan, height = TABLES[table](folder)

        def count() -> None:
            for _ in range(ROUNDS):
                lf = scan().select(pl.len())
                found = lf.collect() if way == "patch" else greendata.collect(lf).get()
                assert found.item() == height
                assert greendata.run(lambda: scan().collect()).get().height == height

        gevent.joinall([gevent.spawn(count) for _ in range(GREENLETS)], raise_error=True)
    print("all")


if __name__ == "__main__":
    main(*sys.argv[1:])
