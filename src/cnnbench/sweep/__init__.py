"""Sweeps: expands overrides into jobs, plans, freezes and runs them, and shows their progress."""
