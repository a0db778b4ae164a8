"""Start-up code: lazy imports, and the patch of Polars on request of the environment."""
