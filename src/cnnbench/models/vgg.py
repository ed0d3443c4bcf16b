"""VGG: Simonyan, Zisserman 2015 (arXiv:1409.1556), table 1; each stage ends in a 2×2 max pooling.

        A        A-LRN    B        C        D        E          output, 224 × 224 in
        11       11       13       16       16       19 layers
stage1  3-64     3-64     3-64     3-64     3-64     3-64        64 × 112 × 112
                 LRN      3-64     3-64     3-64     3-64
stage2  3-128    3-128    3-128    3-128    3-128    3-128      128 ×  56 ×  56
                          3-128    3-128    3-128    3-128
stage3  3-256    3-256    3-256    3-256    3-256    3-256      256 ×  28 ×  28
        3-256    3-256    3-256    3-256    3-256    3-256
                                   1-256    3-256    3-256
                                                     3-256
stage4, stage5   as stage3, with 512 channels                   512 ×  14 ×  14, 512 × 7 × 7
head    linear 4096, linear 4096, linear; ReLU and dropout between them
"""

from __future__ import annotations

from torch import Tensor, nn

from cnnbench.checks import require_choice, require_number
from cnnbench.models.layers import NORMS, PoolTo, named_layers, output_side, pool_and_classify

CONFIGURATIONS = {  # kernel-channels of each convolution
    "A": "3-64 | 3-128 | 3-256 3-256 | 3-512 3-512 | 3-512 3-512",
    "A-LRN": "3-64 LRN | 3-128 | 3-256 3-256 | 3-512 3-512 | 3-512 3-512",
    "B": "3-64 3-64 | 3-128 3-128 | 3-256 3-256 | 3-512 3-512 | 3-512 3-512",
    "C": "3-64 3-64 | 3-128 3-128 | 3-256 3-256 1-256 | 3-512 3-512 1-512 | 3-512 3-512 1-512",
    "D": "3-64 3-64 | 3-128 3-128 | 3-256 3-256 3-256 | 3-512 3-512 3-512 | 3-512 3-512 3-512",
    "E": "3-64 3-64 | 3-128 3-128 | 3-256 3-256 3-256 3-256 | 3-512 3-512 3-512 3-512 | 3-512 3-512 3-512 3-512",
}


class VGG(nn.Module):
    """(N, in_channels, image_size, image_size) -> logits (N, num_classes). `image_size` 224 in the paper; any from 32 pixels.

    `configuration` is a column of the table. `norm` batch puts a batch norm after each convolution, none (the paper) does not.
    `width` multiplies all channels. `head` is paper (three linear layers) or pool (global average, one linear layer).
    """

    min_image_size = 32

    def __init__(
        self,
        configuration: str = "D",
        norm: str = "batch",
        width: float = 1.0,
        head: str = "paper",
        *,
        in_channels: int,
        num_classes: int,
        image_size: int = 224,
    ) -> None:
        super().__init__()
        require_number("width", width, above=0)
        has_norm = require_choice("norm", norm, NORMS) == "batch"
        table = CONFIGURATIONS[require_choice("configuration", configuration, CONFIGURATIONS)].split(" | ")
        w1, w2, w3, w4, hidden = (max(1, round(width * channels)) for channels in (64, 128, 256, 512, 4096))
        self.stage1 = stage(1, table[0], in_channels, w1, has_norm)  # (N,  64, 112, 112)
        self.stage2 = stage(2, table[1], w1, w2, has_norm)  # (N, 128,  56,  56)
        self.stage3 = stage(3, table[2], w2, w3, has_norm)  # (N, 256,  28,  28)
        self.stage4 = stage(4, table[3], w3, w4, has_norm)  # (N, 512,  14,  14)
        self.stage5 = stage(5, table[4], w4, w4, has_norm)  # (N, 512,   7,   7)
        if require_choice("head", head, ("paper", "pool")) == "paper":
            self.head = paper_head(w4, output_side(image_size, self.modules()), hidden, num_classes)
        else:
            pool, flatten, linear = pool_and_classify(w4, num_classes)
            self.head = named_layers(pool=pool, flatten=flatten, linear=linear)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits of a batch of images."""
        x = self.stage3(self.stage2(self.stage1(x)))
        x = self.stage5(self.stage4(x))
        return self.head(x)  # (N, num_classes)


def stage(number: int, table: str, in_channels: int, channels: int, has_norm: bool) -> nn.Sequential:
    """The convolutions of a stage, named as in Caffe's VGG (conv3_1, ...), each with norm and ReLU, then max pooling.

    (N, in_channels, H, W) -> (N, channels, H / 2, W / 2); `table` is a cell of `CONFIGURATIONS`, as in 3-64 3-64.
    """
    layers: dict[str, nn.Module] = {}
    for index, layer in enumerate(table.split(), start=1):
        if layer == "LRN":  # AlexNet's constants; PyTorch divides alpha by the five channels, the paper does not
            layers["lrn"] = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
            continue
        kernel = int(layer.partition("-")[0])
        layers[f"conv{number}_{index}"] = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2)
        if has_norm:
            layers[f"norm{number}_{index}"] = nn.BatchNorm2d(channels)
        layers[f"relu{number}_{index}"] = nn.ReLU()
        in_channels = channels
    layers[f"pool{number}"] = nn.MaxPool2d(2)
    return named_layers(**layers)


def paper_head(channels: int, side: int, hidden: int, num_classes: int) -> nn.Sequential:
    """(N, channels, side, side) -> logits (N, num_classes): two hidden linear layers with ReLU and dropout, then a linear layer."""
    return named_layers(
        pool=PoolTo(side),
        flatten=nn.Flatten(),
        linear6=nn.Linear(channels * side * side, hidden),
        relu6=nn.ReLU(),
        dropout6=nn.Dropout(),
        linear7=nn.Linear(hidden, hidden),
        relu7=nn.ReLU(),
        dropout7=nn.Dropout(),
        linear8=nn.Linear(hidden, num_classes),
    )
