"""Polars on the hub: verbs, engine, batches, and what they know of Polars' insides."""
