"""Polars for greenlets: every Polars execution in native threads, its outcome back on the hub that asked.

    import greendata
    df = greendata.collect(lf).get(timeout=2)

Importing it starts no thread, makes no hub and patches nothing. What it offers is loaded when it is first asked for:
Polars with `collect`, pydantic with `validate`. Once the program imports Polars, its frames have the ``.green``
namespace, a process that is forked after a query knows that no query can run there, and native threads share what
gevent has patched.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from greendata.start.importing import when_imported

if TYPE_CHECKING:
    from greendata import errors as errors
    from greendata import monkey as monkey
    from greendata import observe
    from greendata.errors import (
        AnswerBroken,
        AnswerTooLarge,
        BadArgument,
        BadChoice,
        BadEngine,
        BadSetting,
        BadSignature,
        BadTimeout,
        BatchesBusy,
        BatchesSpent,
        BodyInvalid,
        BodyTooLarge,
        BodyUnsupported,
        CallerStopped,
        ChunksBusy,
        ClientGone,
        ColumnsUnequal,
        ColumnUnreadable,
        ColumnUnwritable,
        ConnectionBusy,
        DatabaseUnreachable,
        DeadlineExceeded,
        DuplicateColumn,
        ElementTimeout,
        FetchFailed,
        FetchTimeout,
        FileMissing,
        ForeignGreenlet,
        FormatUnknown,
        FrameInvalid,
        FrameMismatch,
        GreenDataError,
        GroupClosed,
        GroupTimeout,
        JobAborted,
        JobCancelled,
        Malformed,
        ModelMismatch,
        NoCaller,
        NoCheckout,
        NoColumnForm,
        NoModel,
        NoSnapshot,
        NotAcceptable,
        NotAFrame,
        NotAModel,
        NotAResult,
        NotArrow,
        NotASnapshot,
        NotCallable,
        NoThread,
        NotImportable,
        NotIterable,
        NotWritable,
        PathRefused,
        PlanRefused,
        PolarsForked,
        PoolClosed,
        PoolFull,
        QueryFailed,
        ResultLost,
        ResultTimeout,
        SeamMissing,
        ServiceEnded,
        StreamBusy,
        UnknownColumn,
        UnknownDatabase,
        UnreadableFile,
        UrlRefused,
        WaitsForItself,
        WorkerLost,
        WriteRefused,
        WrongContentType,
    )
    from greendata.flow import stages
    from greendata.frames.batches import Batches
    from greendata.frames.decoders import decode
    from greendata.frames.encoders import Chunks, encode
    from greendata.frames.engine import GreenEngine
    from greendata.frames.models import model_of, schema_of
    from greendata.frames.namespace import GreenFrame, GreenLazyFrame
    from greendata.frames.objects import to_columns, to_dicts, to_models
    from greendata.frames.patch import is_polars_patched, patch_polars, unpatch_polars
    from greendata.frames.sql import SqlBatches, read_sql, write_sql
    from greendata.frames.typed import Frame
    from greendata.frames.urls import read_csv_url, read_ndjson_url, read_parquet_url
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
    from greendata.hub.flight import single_flight
    from greendata.hub.group import Group
    from greendata.hub.logs import route_logging
    from greendata.hub.outcome import Status
    from greendata.hub.pacing import breathe, paced
    from greendata.hub.pool import PoolStats, configure, drain, stats
    from greendata.hub.result import Result
    from greendata.hub.scope import as_completed, gather, shield, wait
    from greendata.observe import doctor

__version__ = "0.1.0"

__all__ = (
    "AnswerBroken",
    "AnswerTooLarge",
    "BadArgument",
    "BadChoice",
    "BadEngine",
    "BadSetting",
    "BadSignature",
    "BadTimeout",
    "Batches",
    "BatchesBusy",
    "BatchesSpent",
    "BodyInvalid",
    "BodyTooLarge",
    "BodyUnsupported",
    "Caller",
    "CallerStopped",
    "Chunks",
    "ChunksBusy",
    "ClientGone",
    "ColumnUnreadable",
    "ColumnUnwritable",
    "ColumnsUnequal",
    "ConnectionBusy",
    "DatabaseUnreachable",
    "DeadlineExceeded",
    "DuplicateColumn",
    "ElementTimeout",
    "FetchFailed",
    "FetchTimeout",
    "FileMissing",
    "Filtered",
    "ForeignGreenlet",
    "FormatUnknown",
    "Frame",
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
    "ModelMismatch",
    "NoCaller",
    "NoCheckout",
    "NoColumnForm",
    "NoModel",
    "NoSnapshot",
    "NoThread",
    "NotAFrame",
    "NotAModel",
    "NotAResult",
    "NotASnapshot",
    "NotAcceptable",
    "NotArrow",
    "NotCallable",
    "NotImportable",
    "NotIterable",
    "NotWritable",
    "PathRefused",
    "PlanRefused",
    "PolarsForked",
    "PoolClosed",
    "PoolFull",
    "PoolStats",
    "QueryFailed",
    "Result",
    "ResultLost",
    "ResultTimeout",
    "SeamMissing",
    "ServiceEnded",
    "SqlBatches",
    "Status",
    "StreamBusy",
    "UnknownColumn",
    "UnknownDatabase",
    "UnreadableFile",
    "UrlRefused",
    "WaitsForItself",
    "WorkerLost",
    "WriteRefused",
    "WrongContentType",
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
    "doctor",
    "drain",
    "encode",
    "explain",
    "filter_valid",
    "gather",
    "is_polars_patched",
    "model_of",
    "observe",
    "paced",
    "patch_polars",
    "read_csv",
    "read_csv_url",
    "read_database_uri",
    "read_ipc",
    "read_ndjson",
    "read_ndjson_url",
    "read_parquet",
    "read_parquet_url",
    "read_sql",
    "route_logging",
    "run",
    "schema_of",
    "shield",
    "single_flight",
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
    "write_sql",
)

# Where a name is defined; what is missing here is an error.
_HOMES = {
    "Batches": "greendata.frames.batches",
    "Caller": "greendata.hub.caller",
    "Chunks": "greendata.frames.encoders",
    "Filtered": "greendata.frames.validation",
    "Frame": "greendata.frames.typed",
    "GreenEngine": "greendata.frames.engine",
    "GreenFrame": "greendata.frames.namespace",
    "GreenLazyFrame": "greendata.frames.namespace",
    "Group": "greendata.hub.group",
    "PoolStats": "greendata.hub.pool",
    "Result": "greendata.hub.result",
    "SqlBatches": "greendata.frames.sql",
    "Status": "greendata.hub.outcome",
    "as_completed": "greendata.hub.scope",
    "batches": "greendata.frames.verbs",
    "breathe": "greendata.hub.pacing",
    "collect": "greendata.frames.verbs",
    "collect_all": "greendata.frames.verbs",
    "collect_schema": "greendata.frames.verbs",
    "configure": "greendata.hub.pool",
    "current_job": "greendata.hub.call",
    "deadline": "greendata.hub.deadline",
    "decode": "greendata.frames.decoders",
    "drain": "greendata.hub.pool",
    "encode": "greendata.frames.encoders",
    "explain": "greendata.frames.verbs",
    "filter_valid": "greendata.frames.validation",
    "gather": "greendata.hub.scope",
    "is_polars_patched": "greendata.frames.patch",
    "model_of": "greendata.frames.models",
    "paced": "greendata.hub.pacing",
    "patch_polars": "greendata.frames.patch",
    "read_csv": "greendata.frames.verbs",
    "read_csv_url": "greendata.frames.urls",
    "read_database_uri": "greendata.frames.verbs",
    "read_ipc": "greendata.frames.verbs",
    "read_ndjson": "greendata.frames.verbs",
    "read_ndjson_url": "greendata.frames.urls",
    "read_parquet": "greendata.frames.verbs",
    "read_parquet_url": "greendata.frames.urls",
    "read_sql": "greendata.frames.sql",
    "route_logging": "greendata.hub.logs",
    "run": "greendata.frames.verbs",
    "schema_of": "greendata.frames.models",
    "shield": "greendata.hub.scope",
    "single_flight": "greendata.hub.flight",
    "sink_csv": "greendata.frames.verbs",
    "sink_ipc": "greendata.frames.verbs",
    "sink_ndjson": "greendata.frames.verbs",
    "sink_parquet": "greendata.frames.verbs",
    "stats": "greendata.hub.pool",
    "to_columns": "greendata.frames.objects",
    "to_dicts": "greendata.frames.objects",
    "to_models": "greendata.frames.objects",
    "unpatch_polars": "greendata.frames.patch",
    "validate": "greendata.frames.validation",
    "wait": "greendata.hub.scope",
    "write_csv": "greendata.frames.verbs",
    "write_ipc": "greendata.frames.verbs",
    "write_json": "greendata.frames.verbs",
    "write_ndjson": "greendata.frames.verbs",
    "write_parquet": "greendata.frames.verbs",
    "write_sql": "greendata.frames.sql",
}


_MODULES = {
    "doctor": "greendata.observe.doctor",
    "errors": "greendata.errors",
    "monkey": "greendata.monkey",
    "observe": "greendata.observe",
    "stages": "greendata.flow.stages",
}


if not TYPE_CHECKING:  # to a type checker a name that is not imported above is an error

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            found = import_module(_MODULES[name])
        elif name in __all__:
            found = getattr(import_module(_HOMES.get(name, "greendata.errors")), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


when_imported("polars", lambda: import_module("greendata.frames.namespace"))
when_imported("polars", lambda: import_module("greendata.frames.fork"))
when_imported("polars", lambda: import_module("greendata.hub.native_waits").share())
