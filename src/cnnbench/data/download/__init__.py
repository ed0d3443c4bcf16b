"""Downloads the published files of data sets, verifies and unpacks them."""
