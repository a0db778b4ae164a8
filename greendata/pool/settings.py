"""The settings of the pool: the defaults and their reasons, the checks, and the environment variables."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from greendata.errors import BadSetting
from greendata.hub.checks import is_count, is_number
from greendata.pool.engine_setting import FORMS, engine_setting, is_engine, isolation

__all__ = ("Settings",)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that `greendata.configure` changes.

    Attributes:
        max_workers: native threads that run jobs. With eight heavy group-bys at once on two cores, the p99 of the
            hub's 1 ms tick is 3.6 ms with 2 workers, 2.8 ms with 4 and 2.0 ms with 8, at the same number of queries a
            second: Polars divides its own thread pool among the running queries. Tiny queries use one worker whatever
            the number, see `greendata.pool.workers`. Fewer workers limit the memory of concurrent queries. A thread
            that waits for a query in another process, or for a lock that another thread has, does not count.
        max_queue: jobs that may wait. Ten times the 1000 requests that a gunicorn worker accepts: a longer queue means
            an overload rather than a burst. At 2 KiB a job it takes some 20 MiB.
        nice: added to the nice value of Polars' threads (Linux), so that the hub's thread runs first when all cores
            are busy. The workers keep theirs, because they hold the GIL at times. On two cores, beside a Python loop
            in one worker and another busy process, the tick's p99 is 39 ms at 0 and 35 ms at 3; it was 68 ms with
            workers and Polars at 10. Beside eight heavy queries it is 16 ms at 0 and 8 ms at 3, and with four busy
            processes 17 ms and 5 ms, at the same number of queries a second. Beside a busy process, queries with
            Python functions lose a third of their speed at 10, and nothing at 3.
        stuck_after: seconds after which the worker of a running job counts as lost and is replaced, at most
            `max_workers` times. Jobs that never return exist (github.com/pola-rs/polars/issues/27969).
        exit_timeout: seconds that an exiting process waits for running jobs. A job with a Python function that
            outlives the interpreter aborts the process with a message on stderr.
        engine: where queries run that name no engine, see `greendata.query.choice`. Threads of this process copy
            nothing and cost least.
        route: called with the label and the key of each such query; returns its engine, or None for *engine*.
        isolate: whether untrusted input is read in a child process, see `greendata.formats.isolation`. Off by default:
            the first child takes a third of a second to start, and each takes 60 MB.
        on_fork: what queries do in a child of a fork in which Polars is unusable: "raise" `PolarsForked`, or run in
            children of their own ("process"), see `greendata.engines.after_fork`. A fork after a query is a mistake
            more often than a wish.

    Example:
        >>> Settings().changed(max_workers=2).max_workers
        2
    """

    max_workers: int = 8
    max_queue: int = 10_000
    nice: int = 3
    stuck_after: float = 600.0
    exit_timeout: float = 10.0
    engine: object = "threads"
    route: Callable[[str, Hashable], object] | None = None
    isolate: bool | str = False
    on_fork: str = "raise"

    def changed(self, **changes: Any) -> Settings:
        """Return these settings with *changes*.

        Raises:
            BadSetting: a value that cannot be used.
            TypeError: no setting of that name.
        """
        new = replace(self, **changes)
        checks = {
            "max_workers": (is_count(new.max_workers), "a whole number >= 1"),
            "max_queue": (is_count(new.max_queue), "a whole number >= 1"),
            "nice": (is_count(new.nice, least=0) and new.nice <= 19, "a whole number from 0 to 19"),
            "stuck_after": (is_number(new.stuck_after) and new.stuck_after > 0, "a number of seconds > 0"),
            "exit_timeout": (is_number(new.exit_timeout), "a number of seconds >= 0"),
            "engine": (isinstance(new.engine, str) or is_engine(new.engine), FORMS),
            "on_fork": (new.on_fork in ("raise", "process"), "'raise' or 'process'"),
            "route": (new.route is None or callable(new.route), "a function of a label and a key"),
        }
        for name, (is_good, expected) in checks.items():
            if not is_good:
                raise BadSetting(name, getattr(new, name), expected)
        if isinstance(new.engine, str):
            engine_setting("engine", new.engine)
        isolation("isolate", new.isolate)
        return new

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Return the defaults, changed by ``GREENDATA_MAX_WORKERS``, ``GREENDATA_MAX_QUEUE`` and so on.

        An empty variable counts as not set.

        Raises:
            BadSetting: a variable that cannot be used.

        Example:
            >>> Settings.from_environment({"GREENDATA_NICE": "0"}).nice
            0
        """
        return cls().changed(**cls.changes_in(environ))

    @classmethod
    def changes_in(cls, values: Mapping[str, object]) -> dict[str, Any]:
        """Return the settings in *values*, where their names are those of the environment variables.

        Text is converted. None and empty text count as not set.

        Raises:
            BadSetting: a value that cannot be used.

        Example:
            >>> Settings.changes_in({"GREENDATA_NICE": "0", "GREENDATA_MAX_WORKERS": 2, "GREENDATA_MAX_QUEUE": ""})
            {'max_workers': 2, 'nice': 0}
        """
        changes: dict[str, Any] = {}
        for field in fields(cls):
            if field.name == "route":  # a function, which only code can give
                continue
            variable = f"GREENDATA_{field.name.upper()}"
            value = values.get(variable)
            if isinstance(value, str) and not value.strip():
                value = None
            if isinstance(value, str):
                if field.name == "engine":
                    engine_setting(variable, value)
                elif field.name == "isolate":
                    isolation(variable, value)
                elif field.name == "on_fork":
                    value = value.strip()
                else:
                    value = _number(variable, value, whole=isinstance(field.default, int))
            if value is not None:
                changes[field.name] = value
        return changes


def _number(variable: str, text: str, *, whole: bool) -> int | float:
    try:
        return int(text) if whole else float(text)
    except ValueError as error:
        raise BadSetting(variable, text, "a whole number" if whole else "a number") from error
