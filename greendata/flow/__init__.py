"""The flow floor: pipelines of greenlets, and what they end in."""
