"""A pipeline of three stages that ends in one Parquet file, with a progress bar.

Twenty sensors at a time are asked for their readings. The readings become rows, and the rows become a file whose row
groups are written one by one: memory holds a few frames, for any number of sensors. The sensors here are a slow gevent
server on loopback, so the example needs no network.

Run it with ``python examples/pipeline_to_parquet.py``. It requires the extra ``progress``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import gevent
import polars as pl
from gevent import socket
from gevent.server import StreamServer

from greendata.pipelines import stages

SENSORS = 500
ROWS = 1_000  # in a row group
SCHEMA = {"sensor": pl.Int32, "hour": pl.Int8, "celsius": pl.Float64}


def serve(connection: socket.socket, _: object) -> None:
    """Simulate the sensors: read a line with a number, and write a line with its readings."""
    with connection, connection.makefile("rw") as line:
        sensor = int(line.readline())
        gevent.sleep(0.01)
        line.write(json.dumps([15 + (sensor + hour) % 10 / 2 for hour in range(24)]) + "\n")


def ask(sensor: int, address: tuple[str, int]) -> tuple[int, list[float]]:
    """Return the readings of one sensor. This waits for the network, so it runs in greenlets."""
    with socket.create_connection(address) as connection, connection.makefile("rw") as line:
        line.write(f"{sensor}\n")
        line.flush()
        return sensor, json.loads(line.readline())


def rows(reading: tuple[int, list[float]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each hour. This is cheap, so it runs inline."""
    sensor, hours = reading
    for hour, celsius in enumerate(hours):
        yield {"sensor": sensor, "hour": hour, "celsius": celsius}


def main() -> None:
    """Ask all sensors, write one file, and query it."""
    with StreamServer(("127.0.0.1", 0), serve) as server, tempfile.TemporaryDirectory() as folder:
        server.start()
        address = ("127.0.0.1", server.server_port)
        pipeline = (
            range(SENSORS)
            | stages.map(ask, workers=20, on_start=lambda: {"address": address}, progress="sensors")
            | stages.flat_map(rows, on="inline")
            | stages.batch(rows=ROWS, schema=SCHEMA)
            | stages.sink_parquet(Path(folder) / "readings.parquet")
        )
        with redirect_stderr(sys.stdout):  # where tqdm draws
            (written,) = pipeline.get(timeout=60)
        warmest = (
            pl.scan_parquet(written.path).group_by("hour").agg(pl.mean("celsius")).sort("celsius").last().collect()
        )
        print(f"{written.rows} rows in {written.row_groups} row groups, {written.size} bytes")
        print(f"warmest at {warmest['hour'].item()} o'clock: {warmest['celsius'].item():.2f} degrees")


if __name__ == "__main__":
    main()
