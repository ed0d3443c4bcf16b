"""Data sets: uint8 tensors in memory, cut into batches; one short file a set. The test split is read once, at the end."""
