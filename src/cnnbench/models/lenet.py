"""LeNet without activations, as PyTorch courses introduce it: two convolutions with pooling, three linear layers.

layer    output, 28 × 28 in
layer1    6 × 14 × 14   3×3, 6, padding 1; max 2×2
layer2   16 ×  5 ×  5   5×5, 16; max 2×2
layer3   num_classes    linear 120, linear 84, linear
"""

from __future__ import annotations

from torch import Tensor, nn

from cnnbench.models.layers import activation_layer, conv_layer, named_layers, output_side, pooling_layer


class LeNet(nn.Module):
    """(N, in_channels, image_size, image_size) -> logits (N, num_classes). `image_size` 28 in the course; any from 12 pixels.

    `kernel_size` is that of the second convolution, `stride` that of both. `activation` follows every layer except the last.
    """

    min_image_size = 12

    def __init__(
        self,
        kernel_size: int = 5,
        stride: int = 1,
        activation: str = "none",
        pooling: str = "max",
        *,
        in_channels: int,
        num_classes: int,
        image_size: int = 28,
    ) -> None:
        super().__init__()
        self.layer1 = named_layers(
            conv1=conv_layer(in_channels, 6, 3, stride, padding=1),
            act1=activation_layer(activation),
            pool1=pooling_layer(pooling),
        )
        self.layer2 = named_layers(
            conv2=conv_layer(6, 16, kernel_size, stride),
            act2=activation_layer(activation),
            pool2=pooling_layer(pooling),
        )
        side = output_side(image_size, (*self.layer1, *self.layer2))
        self.flatten = nn.Flatten()
        self.layer3 = named_layers(
            fc1=nn.Linear(16 * side * side, 120),
            act1=activation_layer(activation),
            fc2=nn.Linear(120, 84),
            act2=activation_layer(activation),
            fc3=nn.Linear(84, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits of a batch of images."""
        x = self.layer2(self.layer1(x))  # (N, 16, 5, 5)
        return self.layer3(self.flatten(x))  # (N, num_classes)
