"""Observe a process: counters and histograms, hub lag, blocked hubs, metrics and traces.

    from greendata import observe

    observe.start()
    print(observe.stats())

Nothing is recorded before `start`. Importing this package has no effect.
"""

from __future__ import annotations

from greendata.observe.block_watch import Block, BlockWatch, watch_blocks
from greendata.observe.counters import Failure, LabelStats
from greendata.observe.histogram import Histogram
from greendata.observe.inline import HubBlockedWarning, warn_on_block
from greendata.observe.lag import LagProbe, watch_lag
from greendata.observe.running import QueuedJob, RunningCrawl, RunningJob, cancel, crawls, queued, running
from greendata.observe.stats import Lag, QueryCounts, Stats, snapshot_json, stats
from greendata.observe.summaries import FailureGroup, LabelSummary
from greendata.observe.watch import Observer, Second, start, stop

__all__ = (
    "Block",
    "BlockWatch",
    "Failure",
    "FailureGroup",
    "Histogram",
    "HubBlockedWarning",
    "LabelStats",
    "LabelSummary",
    "Lag",
    "LagProbe",
    "Observer",
    "QueryCounts",
    "QueuedJob",
    "RunningCrawl",
    "RunningJob",
    "Second",
    "Stats",
    "cancel",
    "crawls",
    "queued",
    "running",
    "snapshot_json",
    "start",
    "stats",
    "stop",
    "warn_on_block",
    "watch_blocks",
    "watch_lag",
)
