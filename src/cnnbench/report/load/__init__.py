"""Reads run and sweep directories into tables."""
