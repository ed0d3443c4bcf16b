"""LeNet-5 on the hand-written operators: nndl-practice, section 5.3. Layers, names and sizes are those of `models/lenet5.py`."""

from __future__ import annotations

from torch import Tensor, nn

from cnnbench.ops.convolution import Conv2d
from cnnbench.ops.pooling import MaxPool2d, MeanPool2d
from cnnbench.ops.reshaping import Flatten


class LeNet5ByHand(nn.Module):
    """(N, in_channels, 32, 32) -> logits (N, num_classes). Its `state_dict` fits LeNet5."""

    min_image_size = 32
    max_image_size = 32

    def __init__(self, *, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1, self.act1 = Conv2d(in_channels, 6, 5), nn.ReLU()
        self.pool2 = MaxPool2d(2)
        self.conv3, self.act3 = Conv2d(6, 16, 5), nn.ReLU()
        self.pool4 = MeanPool2d(2)
        self.conv5, self.act5 = Conv2d(16, 120, 5), nn.ReLU()
        self.flatten = Flatten()
        self.linear6, self.act6 = nn.Linear(120, 84), nn.ReLU()
        self.linear7 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits of a batch of images."""
        x = self.pool2(self.act1(self.conv1(x)))  # (N,   6, 14, 14)
        x = self.pool4(self.act3(self.conv3(x)))  # (N,  16,  5,  5)
        x = self.flatten(self.act5(self.conv5(x)))  # (N, 120)
        x = self.act6(self.linear6(x))  # (N,  84)
        return self.linear7(x)  # (N, num_classes)
