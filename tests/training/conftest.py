"""Fixtures of the tests of training."""

from options import only, train  # noqa: F401
