"""The page that shows a server at work: ``GREENDATA_DASHBOARD = True`` puts it at ``/greendata/``."""

from __future__ import annotations

from greendata.web.dashboard.pages import dashboard

__all__ = ("dashboard",)
