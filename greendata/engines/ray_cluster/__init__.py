"""Parts of `greendata.engines.ray`: its child process, and what runs on the nodes of a cluster."""
