"""Computes findings from the tables of runs: statistics, then sentences (`conclusions`, `limitations`). Pure functions."""
