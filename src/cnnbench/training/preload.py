"""Modules that the fork server imports once, so that no job has to import them."""

import gc

from matplotlib.backends import backend_agg  # noqa: F401  (draws the curves)
from PIL import Image

from cnnbench.runs import environment
from cnnbench.training import run  # noqa: F401  (imports torch and Lightning)

environment.code_version(), environment.git_state()  # of the code that is imported now
Image.preinit()  # else Pillow searches for its formats at the first image
gc.collect()
gc.freeze()  # else a collection would write to all of this memory, and so copy it, in every job
