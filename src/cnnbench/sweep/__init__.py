"""Runs in processes of their own."""
