"""Polars for greenlets: every Polars execution in native threads, its outcome back on the hub that asked.

    import greendata
    df = greendata.collect(lf).get(timeout=2)

Importing it has no effect beyond the ``.green`` namespace on Polars' frames: no thread, no hub, no patch.
"""

from __future__ import annotations

from greendata.errors import (
    BadArgument,
    BadChoice,
    BadEngine,
    BadSetting,
    BadSignature,
    BadTimeout,
    BatchesBusy,
    BatchesSpent,
    BodyTooLarge,
    CallerStopped,
    ChunksBusy,
    DeadlineExceeded,
    DuplicateColumn,
    ElementTimeout,
    FrameInvalid,
    FrameMismatch,
    GreenDataError,
    GroupClosed,
    GroupTimeout,
    JobAborted,
    JobCancelled,
    Malformed,
    NoCaller,
    NoColumnForm,
    NotAFrame,
    NotAModel,
    NotAResult,
    NotCallable,
    NotIterable,
    NotWritable,
    PolarsForked,
    PoolClosed,
    PoolFull,
    ResultLost,
    ResultTimeout,
    SeamMissing,
    ServiceEnded,
    StreamBusy,
    WaitsForItself,
)
from greendata.flow import stages
from greendata.frames.batches import Batches
from greendata.frames.decoders import decode
from greendata.frames.encoders import Chunks, encode
from greendata.frames.engine import GreenEngine
from greendata.frames.models import model_of, schema_of
from greendata.frames.namespace import GreenFrame, GreenLazyFrame
from greendata.frames.objects import to_columns, to_dicts, to_models
from greendata.frames.validation import Filtered, filter_valid, validate
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
from greendata.hub.call import current_job
from greendata.hub.caller import Caller
from greendata.hub.deadline import deadline
from greendata.hub.group import Group
from greendata.hub.logs import route_logging
from greendata.hub.pacing import breathe, paced
from greendata.hub.pool import PoolStats, configure, drain, stats
from greendata.hub.result import Result, Status
from greendata.hub.scope import as_completed, gather, shield, wait
from greendata.monkey import is_polars_patched, patch_polars, unpatch_polars

__version__ = "0.1.0"

__all__ = (
    "BadArgument",
    "BadChoice",
    "BadEngine",
    "BadSetting",
    "BadSignature",
    "BadTimeout",
    "Batches",
    "BatchesBusy",
    "BatchesSpent",
    "BodyTooLarge",
    "Caller",
    "CallerStopped",
    "Chunks",
    "ChunksBusy",
    "DeadlineExceeded",
    "DuplicateColumn",
    "ElementTimeout",
    "Filtered",
    "FrameInvalid",
    "FrameMismatch",
    "GreenDataError",
    "GreenEngine",
    "GreenFrame",
    "GreenLazyFrame",
    "Group",
    "GroupClosed",
    "GroupTimeout",
    "JobAborted",
    "JobCancelled",
    "Malformed",
    "NoCaller",
    "NoColumnForm",
    "NotAFrame",
    "NotAModel",
    "NotAResult",
    "NotCallable",
    "NotIterable",
    "NotWritable",
    "PolarsForked",
    "PoolClosed",
    "PoolFull",
    "PoolStats",
    "Result",
    "ResultLost",
    "ResultTimeout",
    "SeamMissing",
    "ServiceEnded",
    "Status",
    "StreamBusy",
    "WaitsForItself",
    "__version__",
    "as_completed",
    "batches",
    "breathe",
    "collect",
    "collect_all",
    "collect_schema",
    "configure",
    "current_job",
    "deadline",
    "decode",
    "drain",
    "encode",
    "explain",
    "filter_valid",
    "gather",
    "is_polars_patched",
    "model_of",
    "paced",
    "patch_polars",
    "read_csv",
    "read_database_uri",
    "read_ipc",
    "read_ndjson",
    "read_parquet",
    "route_logging",
    "run",
    "schema_of",
    "shield",
    "sink_csv",
    "sink_ipc",
    "sink_ndjson",
    "sink_parquet",
    "stages",
    "stats",
    "to_columns",
    "to_dicts",
    "to_models",
    "unpatch_polars",
    "validate",
    "wait",
    "write_csv",
    "write_ipc",
    "write_json",
    "write_ndjson",
    "write_parquet",
)
