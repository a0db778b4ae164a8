"""Servers: what a request may use, what it gets back, and how a worker begins and ends."""
