"""A pytest plugin: hypothesis draws the same examples each time, keeps none, and has no deadline."""

from hypothesis import settings

settings.register_profile("mutation", derandomize=True, deadline=None, database=None)
settings.load_profile("mutation")
