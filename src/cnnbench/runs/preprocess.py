"""Converts an image to the input of a trained net."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


def to_input(image: Image.Image, facts: dict[str, Any]) -> Tensor:
    """The image as floats (C, image_size, image_size), resized and normalised like the training data.

    Args:
        image: of any size; its mode has as many channels as the data.
        facts: of the data, as `load_net` returns them: `image_size`, and `mean` and `std` per channel.
    """
    import numpy as np
    import torch

    from cnnbench.augment.functional import resize

    pixels = torch.from_numpy(np.array(image)).view(image.height, image.width, -1).permute(2, 0, 1).unsqueeze(0)
    pixels = resize(pixels, facts["image_size"])
    mean, std = (torch.tensor(facts[key]).view(-1, 1, 1) for key in ("mean", "std"))
    return (pixels[0].float() / 255 - mean) / std
