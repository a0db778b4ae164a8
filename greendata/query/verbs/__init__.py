"""The verbs: Polars' own names and keyword arguments, each returning a `Result` at once.

Every verb takes three more arguments than the Polars function of that name:

- ``timeout``: the deadline in seconds, for queue wait and run time together. If the call is inside `greendata.deadline`
  blocks, the nearest deadline counts. When it passes, the result fails with `DeadlineExceeded`.
- ``key``: jobs with different keys, for example tenants or routes, take turns.
- ``label``: the name of the job in errors and statistics; the verb's name if None.

Every verb raises these errors when it is called, and then no job is queued: `NotAFrame`, `BadEngine`, `BadTimeout`,
`RouteFailed`, TypeError for an argument that Polars does not have, `PoolFull`, `PoolClosed` and `PolarsForked`. Errors
of Polars are raised by the result. A sink that is cancelled or expires leaves what Polars has written by then. Safe
from any thread.

Arguments of Polars that a `Result` replaces do not exist here: ``background`` (every verb returns at once) and ``lazy``
(a plan that is not run needs no pool: use the method of the frame, then `collect_all`).
"""

from greendata.query.verbs.queries import batches, collect, collect_all, collect_schema, explain, run
from greendata.query.verbs.reads import read_csv, read_database_uri, read_ipc, read_ndjson, read_parquet
from greendata.query.verbs.sinks import sink_csv, sink_ipc, sink_ndjson, sink_parquet
from greendata.query.verbs.writes import write_csv, write_ipc, write_json, write_ndjson, write_parquet

__all__ = (
    "batches",
    "collect",
    "collect_all",
    "collect_schema",
    "explain",
    "read_csv",
    "read_database_uri",
    "read_ipc",
    "read_ndjson",
    "read_parquet",
    "run",
    "sink_csv",
    "sink_ipc",
    "sink_ndjson",
    "sink_parquet",
    "write_csv",
    "write_ipc",
    "write_json",
    "write_ndjson",
    "write_parquet",
)
