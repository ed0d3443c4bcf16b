"""Data sets: uint8 tensors in memory, cut into batches; one short file per set. The test split is read once, at the end."""
