"""One file a data set: its facts, and how its files are read."""
