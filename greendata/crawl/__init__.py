"""Crawl sites: fetch pages politely and safely, follow their links, and store them so that a crawl can be resumed."""

import polars  # noqa: F401 - before any module here: the fork guard and the patch wait for Polars

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
