"""Greenlets and native threads: the floor that everything else stands on. It has never heard of Polars."""
