"""The data sets: one file each, with its facts and how its files are read."""
