"""The dashboard: ``GREENDATA_DASHBOARD = True`` adds a page at ``/greendata/`` that shows the process at work."""

from __future__ import annotations

from greendata.web.dashboard.pages import dashboard

__all__ = ("dashboard",)
