"""The data sets: one file each, with its facts and how its files are read.

To add a set:

1. `sets/<name>.py`: a subclass of `data.datamodule.ImageData` with the facts, `files`, `count` and `read`. `cifar10` and
   `fashionmnist` are the shortest models: they share a file format, `cifar` and `idx`.
2. `conf/data/<name>.yaml`: its class as `_target_`, a one-line description as first comment, and its own keys.
3. `tests/data/sets/test_<name>.py`.
"""
