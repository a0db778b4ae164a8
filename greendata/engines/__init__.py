"""Other places where a query can run: child processes that can be killed, and the nodes of a cluster."""
