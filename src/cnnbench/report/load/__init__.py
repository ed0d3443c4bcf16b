"""Run and sweep directories to tables."""
