"""AlexNet, the one-column form: Krizhevsky 2014 (arXiv:1404.5997), after Krizhevsky, Sutskever, Hinton 2012.

layer    output, 224 × 224 in
conv1    64 × 55 × 55   11×11, 64, stride 4, padding 2, ReLU
         64 × 27 × 27   max 3×3, stride 2
conv2   192 × 27 × 27   5×5, 192, ReLU
        192 × 13 × 13   max 3×3, stride 2
conv3   384 × 13 × 13   3×3, 384, ReLU
conv4   256 × 13 × 13   3×3, 256, ReLU
conv5   256 × 13 × 13   3×3, 256, ReLU
        256 ×  6 ×  6   max 3×3, stride 2
        num_classes     dropout, linear 4096, ReLU, dropout, linear 4096, ReLU, linear
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from cnnbench.models.layers import PoolTo, named_layers, output_side

SMALLEST_AT_STRIDE_4 = 63  # pixels a side; of a smaller image nothing is left before the third pooling


class AlexNet(nn.Module):
    """(N, in_channels, image_size, image_size) -> logits (N, num_classes). `image_size` 224 in the paper; any from 32 pixels.

    Below 63 pixels the first convolution has stride 1 instead of 4, because nothing would be left; all else is the same.
    """

    min_image_size = 32

    def __init__(self, *, in_channels: int, num_classes: int, image_size: int = 224) -> None:
        super().__init__()
        stride = 4 if image_size >= SMALLEST_AT_STRIDE_4 else 1
        max3x3 = partial(nn.MaxPool2d, kernel_size=3, stride=2)
        self.features = named_layers(
            conv1=nn.Conv2d(in_channels, 64, kernel_size=11, stride=stride, padding=2),
            relu1=nn.ReLU(),
            pool1=max3x3(),
            conv2=nn.Conv2d(64, 192, kernel_size=5, padding=2),
            relu2=nn.ReLU(),
            pool2=max3x3(),
            conv3=nn.Conv2d(192, 384, kernel_size=3, padding=1),
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(384, 256, kernel_size=3, padding=1),
            relu4=nn.ReLU(),
            conv5=nn.Conv2d(256, 256, kernel_size=3, padding=1),
            relu5=nn.ReLU(),
            pool5=max3x3(),
        )
        side = output_side(image_size, self.features)
        self.pool = PoolTo(side)
        self.flatten = nn.Flatten()
        self.classifier = named_layers(
            dropout6=nn.Dropout(),
            linear6=nn.Linear(256 * side * side, 4096),
            relu6=nn.ReLU(),
            dropout7=nn.Dropout(),
            linear7=nn.Linear(4096, 4096),
            relu7=nn.ReLU(),
            linear8=nn.Linear(4096, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits of a batch of images."""
        x = self.pool(self.features(x))  # (N, 256, 6, 6)
        return self.classifier(self.flatten(x))  # (N, num_classes)
