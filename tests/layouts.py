"""Nets of users that need their maps in a certain memory format, for model._target_=layouts.X."""

import torch
from torch import nn
from torch.nn import functional as F


class Viewing(nn.Module):
    """Flattens its maps with `view` in the modes that `where` names: always, training, scoring; it fails if channels-last."""

    def __init__(self, num_classes, in_channels, image_size, where="always"):
        super().__init__()
        self.conv, self.where = nn.Conv2d(in_channels, 4, 3, padding=1), where
        self.linear = nn.Linear(4 * (image_size // 4) ** 2, num_classes)

    def forward(self, x):
        x = F.max_pool2d(torch.relu(self.conv(x)), 4)
        views = self.where in ("always", "training" if self.training else "scoring")
        return self.linear(x.view(x.size(0), -1) if views else x.flatten(1))


class NoMetaViewing(Viewing):
    """Also reads a value in its forward, which the meta device cannot give."""

    def forward(self, x):
        return super().forward(x) * (2.0 if x.sum().item() > 1e9 else 1.0)


class After(nn.Module):
    """A convolution, then `layer`, then a `view`, which works only if the layer's output is channels-first."""

    def __init__(self, layer):
        super().__init__()
        self.conv, self.layer = nn.Conv2d(3, 8, 3, padding=1), layer

    def forward(self, x):
        x = self.layer(self.conv(x))
        return x.view(len(x), -1)


class Does(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class FirstInBackward(torch.autograd.Function):
    """Returns its input, and needs a channels-first gradient."""

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient.view(len(gradient), -1).view(gradient.shape)


class Standardized(nn.Conv2d):
    """A convolution that flattens its kernels with `view` to give them mean 0."""

    def forward(self, x):
        flat = self.weight.view(len(self.weight), -1)
        return F.conv2d(x, (flat - flat.mean(1, keepdim=True)).view_as(self.weight), self.bias)


LAYERS = {
    "nothing": nn.Identity(),
    "relu": nn.ReLU(),
    "batch norm": nn.BatchNorm2d(8),
    "group norm": nn.GroupNorm(2, 8),
    "instance norm": nn.InstanceNorm2d(8),
    "local response": nn.LocalResponseNorm(5),
    "max pooling": nn.MaxPool2d(2),
    "mean pooling": nn.AvgPool2d(2),
    "adaptive pooling": nn.AdaptiveAvgPool2d(3),
    "global pooling": nn.AdaptiveAvgPool2d(1),
    "dropout": nn.Dropout2d(),
    "depthwise": nn.Conv2d(8, 8, 3, groups=8),
    "transposed": nn.ConvTranspose2d(8, 4, 3),
    "upsampling": nn.Upsample(scale_factor=2, mode="bilinear"),
    "reflection": nn.ReflectionPad2d(1),
    "replication": nn.ReplicationPad2d(1),
    "zeros": nn.ZeroPad2d(1),
    "pixel shuffle": nn.PixelShuffle(2),
    "pixel unshuffle": nn.PixelUnshuffle(2),
    "channel shuffle": nn.ChannelShuffle(2),
    "standardized": Standardized(8, 8, 3),
    "contiguous": Does(torch.Tensor.contiguous),
    "roll": Does(lambda x: x.roll(1, 2)),
    "concatenation": Does(lambda x: torch.cat([x, x], 1)),
    "own shuffle": Does(lambda x: x.view(len(x), 2, 4, *x.shape[2:]).transpose(1, 2).reshape(x.shape)),
    "convolved again": nn.Sequential(Does(torch.Tensor.contiguous), nn.Conv2d(8, 8, 3)),
    "backward": nn.Sequential(Does(FirstInBackward.apply), nn.Conv2d(8, 8, 1), Does(torch.Tensor.contiguous)),
}
