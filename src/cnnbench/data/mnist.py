"""MNIST."""

from cnnbench.data.idx import IdxData


class MNIST(IdxData):
    """60,000 + 10,000 handwritten digits (LeCun, Cortes, Burges; CC BY-SA 3.0). Mean and deviation over all train pixels."""

    name = "mnist"
    torchvision_name = "MNIST"
    classes = tuple("0123456789")
    channels, size = 1, 28
    own_mean, own_std = (0.1307,), (0.3081,)
