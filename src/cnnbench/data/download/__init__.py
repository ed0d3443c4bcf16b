"""Downloads the published files of data sets."""
