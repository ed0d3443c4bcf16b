"""Tables to findings; pure functions."""
