"""The test suite of greendata."""
