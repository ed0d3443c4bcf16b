"""Fixtures of the tests of downloads."""

from fetching import dead, digits, impatient, no_network, photographs, server  # noqa: F401
