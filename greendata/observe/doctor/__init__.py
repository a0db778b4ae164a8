"""The doctor: check that a process is set up correctly for gevent and Polars.

    print(doctor.report(doctor.examine()))

`examine` checks the process in which it is called. So call it in the running server: in gunicorn's
``post_worker_init``, or in a shell inside the worker. ``python -m greendata doctor MODULE`` imports a module first.
"""

from __future__ import annotations

from greendata.observe.doctor.examination import examine
from greendata.observe.doctor.findings import Finding, Verdict, has_failures, report
from greendata.observe.doctor.imports import Import, watched

__all__ = ("Finding", "Import", "Verdict", "examine", "has_failures", "report", "watched")
