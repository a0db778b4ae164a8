"""Polars for greenlets."""
__version__ = "0.1.0"
