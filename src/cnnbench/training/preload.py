"""What the fork server imports once, so that no job has to."""

import gc

from matplotlib.backends import backend_agg  # noqa: F401  (curves are drawn with it)
from PIL import Image

Image.preinit()  # Pillow looks for its formats at the first picture
gc.collect()
gc.freeze()  # a collection would touch, and so copy, all of it in every job
