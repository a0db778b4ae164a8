"""The documentation as a site: README, the guides, the examples, the architecture, and the reference by pdoc."""
