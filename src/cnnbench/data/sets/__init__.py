"""The data sets: one file each, with its facts and how its files are read.

To add a set:

1. `sets/<name>.py`: a subclass of `data.datamodule.ImageData` with the facts `name`, `classes`, `channels`, `size`, `own_mean` and
   `own_std` (empty: measured), with `count` and `read`, and with `remotes` for published files or `files` for others. Copy `mnist5k`
   (one file), `synthetic` (no files), or `fashionmnist` (the file format of `idx`, which has `count` and `read`).
2. `conf/data/<name>.yaml`: a one-line description as first comment, the defaults `[/data_keys@_here_, _self_]`, its class as
   `_target_`, and its own keys.
3. `tests/data/sets/test_<name>.py`.
"""
