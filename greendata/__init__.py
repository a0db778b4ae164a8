"""Polars for greenlets: every Polars execution in native threads, its outcome back on the hub that asked.

    import greendata
    df = greendata.collect(lf).get(timeout=2)

Importing it has no effect beyond the ``.green`` namespace on Polars' frames: no thread, no hub, no patch.
"""

from __future__ import annotations

from greendata.errors import (
    BadEngine,
    BadSetting,
    BadTimeout,
    BatchesBusy,
    BatchesSpent,
    DeadlineExceeded,
    GreenDataError,
    JobAborted,
    JobCancelled,
    NotAFrame,
    NotCallable,
    PolarsForked,
    PoolClosed,
    PoolFull,
    ResultLost,
    ResultTimeout,
    SeamMissing,
)
from greendata.frames.batches import Batches
from greendata.frames.engine import GreenEngine
from greendata.frames.namespace import GreenFrame, GreenLazyFrame
from greendata.frames.verbs import (
    batches,
    collect,
    collect_all,
    collect_schema,
    explain,
    read_csv,
    read_database_uri,
    read_ipc,
    read_ndjson,
    read_parquet,
    run,
    sink_csv,
    sink_ipc,
    sink_ndjson,
    sink_parquet,
    write_csv,
    write_ipc,
    write_json,
    write_ndjson,
    write_parquet,
)
from greendata.hub.deadline import deadline
from greendata.hub.logs import route_logging
from greendata.hub.pacing import breathe, paced
from greendata.hub.pool import PoolStats, configure, drain, stats
from greendata.hub.result import Result, Status
from greendata.monkey import is_polars_patched, patch_polars, unpatch_polars

__version__ = "0.1.0"

__all__ = (
    "BadEngine",
    "BadSetting",
    "BadTimeout",
    "Batches",
    "BatchesBusy",
    "BatchesSpent",
    "DeadlineExceeded",
    "GreenDataError",
    "GreenEngine",
    "GreenFrame",
    "GreenLazyFrame",
    "JobAborted",
    "JobCancelled",
    "NotAFrame",
    "NotCallable",
    "PolarsForked",
    "PoolClosed",
    "PoolFull",
    "PoolStats",
    "Result",
    "ResultLost",
    "ResultTimeout",
    "SeamMissing",
    "Status",
    "__version__",
    "batches",
    "breathe",
    "collect",
    "collect_all",
    "collect_schema",
    "configure",
    "deadline",
    "drain",
    "explain",
    "is_polars_patched",
    "paced",
    "patch_polars",
    "read_csv",
    "read_database_uri",
    "read_ipc",
    "read_ndjson",
    "read_parquet",
    "route_logging",
    "run",
    "sink_csv",
    "sink_ipc",
    "sink_ndjson",
    "sink_parquet",
    "stats",
    "unpatch_polars",
    "write_csv",
    "write_ipc",
    "write_json",
    "write_ndjson",
    "write_parquet",
)
