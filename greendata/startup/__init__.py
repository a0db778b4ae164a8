"""Start-up: what greendata does before it is used, which is next to nothing."""
