"""Processes: ranks, signals, the fork server."""
