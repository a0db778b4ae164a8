"""Polars for greenlets: run every Polars execution in a native thread, and return its outcome to the calling hub.

    import greendata
    df = greendata.collect(lf).get(timeout=2)

Importing this package starts no thread, makes no hub and patches nothing. Each name is loaded on first use: Polars
with `collect`, pydantic with `validate`. Once the program imports Polars, its frames have the ``.green`` namespace
(which type checkers do not know, as they know none of Polars'), a process that is forked after a query refuses to run
queries, and objects that gevent has patched work on native threads.
"""

from __future__ import annotations

from importlib import import_module
from sys import modules
from typing import TYPE_CHECKING

from greendata.startup.importing import when_imported

if TYPE_CHECKING:
    from greendata import crawl, observe
    from greendata import errors as errors
    from greendata import monkey as monkey
    from greendata.engines.process import ProcessEngine
    from greendata.engines.ray import RayTasks
    from greendata.errors import (
        DeadlineExceeded,
        FetchFailed,
        FrameInvalid,
        GreenDataError,
        JobAborted,
        JobCancelled,
        Malformed,
        PathRefused,
        PoolFull,
        QueryFailed,
        ResultTimeout,
        UrlRefused,
    )
    from greendata.formats.decoders import decode
    from greendata.formats.encoders import Chunks, encode
    from greendata.http.pagination import paginate
    from greendata.http.readers import read_csv_url, read_ndjson_url, read_parquet_url
    from greendata.http.session import GuardedSession
    from greendata.hub.deadline import deadline
    from greendata.hub.logs import route_logging
    from greendata.hub.outcome import Status
    from greendata.hub.pacing import breathe, paced
    from greendata.hub.result import Result
    from greendata.observe import doctor
    from greendata.pipelines import stages
    from greendata.pool.pool import PoolStats, configure, drain, stats
    from greendata.query.batches import Batches
    from greendata.query.engine import GreenEngine
    from greendata.query.namespace import GreenFrame, GreenLazyFrame
    from greendata.query.objects import to_columns, to_dicts, to_models
    from greendata.query.patching.patch import is_polars_patched, patch_polars, unpatch_polars
    from greendata.query.verbs import (
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
    from greendata.schema.models import model_of, schema_of
    from greendata.sql.verbs import SqlBatches, load, read_sql, write_sql
    from greendata.tasks.caller import Caller
    from greendata.tasks.group import Group
    from greendata.tasks.single_flight import single_flight
    from greendata.tasks.task import current_job
    from greendata.tasks.waiting import as_completed, gather, shield, wait
    from greendata.typed.frame import Frame
    from greendata.validation.verbs import Filtered, filter_valid, validate

__version__ = "0.1.0"

__all__ = (
    "Batches",
    "Caller",
    "Chunks",
    "DeadlineExceeded",
    "FetchFailed",
    "Filtered",
    "Frame",
    "FrameInvalid",
    "GreenDataError",
    "GreenEngine",
    "GreenFrame",
    "GreenLazyFrame",
    "Group",
    "GuardedSession",
    "JobAborted",
    "JobCancelled",
    "Malformed",
    "PathRefused",
    "PoolFull",
    "PoolStats",
    "ProcessEngine",
    "QueryFailed",
    "RayTasks",
    "Result",
    "ResultTimeout",
    "SqlBatches",
    "Status",
    "UrlRefused",
    "__version__",
    "as_completed",
    "batches",
    "breathe",
    "collect",
    "collect_all",
    "collect_schema",
    "configure",
    "crawl",
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
    "load",
    "model_of",
    "observe",
    "paced",
    "paginate",
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

# The module that defines each public name. Names that are not listed are in greendata.errors: the errors that programs
# catch most are in `__all__`. The others are available here too, because ``except greendata.Name`` looks the name up
# only when something has failed already.
_DEFINED_IN = {
    "Batches": "greendata.query.batches",
    "Caller": "greendata.tasks.caller",
    "Chunks": "greendata.formats.encoders",
    "Filtered": "greendata.validation.verbs",
    "Frame": "greendata.typed.frame",
    "GreenEngine": "greendata.query.engine",
    "GreenFrame": "greendata.query.namespace",
    "GreenLazyFrame": "greendata.query.namespace",
    "Group": "greendata.tasks.group",
    "GuardedSession": "greendata.http.session",
    "PoolStats": "greendata.pool.pool",
    "ProcessEngine": "greendata.engines.process",
    "RayTasks": "greendata.engines.ray",
    "Result": "greendata.hub.result",
    "SqlBatches": "greendata.sql.verbs",
    "Status": "greendata.hub.outcome",
    "as_completed": "greendata.tasks.waiting",
    "batches": "greendata.query.verbs",
    "breathe": "greendata.hub.pacing",
    "collect": "greendata.query.verbs",
    "collect_all": "greendata.query.verbs",
    "collect_schema": "greendata.query.verbs",
    "configure": "greendata.pool.pool",
    "current_job": "greendata.tasks.task",
    "deadline": "greendata.hub.deadline",
    "decode": "greendata.formats.decoders",
    "drain": "greendata.pool.pool",
    "encode": "greendata.formats.encoders",
    "explain": "greendata.query.verbs",
    "filter_valid": "greendata.validation.verbs",
    "gather": "greendata.tasks.waiting",
    "is_polars_patched": "greendata.query.patching.patch",
    "load": "greendata.sql.verbs",
    "model_of": "greendata.schema.models",
    "paced": "greendata.hub.pacing",
    "paginate": "greendata.http.pagination",
    "patch_polars": "greendata.query.patching.patch",
    "read_csv": "greendata.query.verbs",
    "read_csv_url": "greendata.http.readers",
    "read_database_uri": "greendata.query.verbs",
    "read_ipc": "greendata.query.verbs",
    "read_ndjson": "greendata.query.verbs",
    "read_ndjson_url": "greendata.http.readers",
    "read_parquet": "greendata.query.verbs",
    "read_parquet_url": "greendata.http.readers",
    "read_sql": "greendata.sql.verbs",
    "route_logging": "greendata.hub.logs",
    "run": "greendata.query.verbs",
    "schema_of": "greendata.schema.models",
    "shield": "greendata.tasks.waiting",
    "single_flight": "greendata.tasks.single_flight",
    "sink_csv": "greendata.query.verbs",
    "sink_ipc": "greendata.query.verbs",
    "sink_ndjson": "greendata.query.verbs",
    "sink_parquet": "greendata.query.verbs",
    "stats": "greendata.pool.pool",
    "to_columns": "greendata.query.objects",
    "to_dicts": "greendata.query.objects",
    "to_models": "greendata.query.objects",
    "unpatch_polars": "greendata.query.patching.patch",
    "validate": "greendata.validation.verbs",
    "wait": "greendata.tasks.waiting",
    "write_csv": "greendata.query.verbs",
    "write_ipc": "greendata.query.verbs",
    "write_json": "greendata.query.verbs",
    "write_ndjson": "greendata.query.verbs",
    "write_parquet": "greendata.query.verbs",
    "write_sql": "greendata.sql.verbs",
}


_MODULES = {
    "crawl": "greendata.crawl",
    "doctor": "greendata.observe.doctor",
    "errors": "greendata.errors",
    "monkey": "greendata.monkey",
    "observe": "greendata.observe",
    "stages": "greendata.pipelines.stages",
}


if not TYPE_CHECKING:  # so that type checkers report names that are not imported above

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            found = import_module(_MODULES[name])
        elif name in _DEFINED_IN:
            found = getattr(import_module(_DEFINED_IN[name]), name)
        elif name[:1].isupper() and name in (errors := import_module("greendata.errors")).__all__:
            found = getattr(errors, name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=modules[__name__])
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES, *(name for name in globals() if name.startswith("__"))})


when_imported("polars", lambda: import_module("greendata.query.namespace"))
when_imported("polars", lambda: import_module("greendata.query.patching.fork_guard"))
when_imported("polars", lambda: import_module("greendata.threads.sharing").share())
