"""FashionMNIST."""

from cnnbench.data.idx import IdxData


class FashionMNIST(IdxData):
    """60,000 + 10,000 pictures of clothes (Xiao, Rasul, Vollgraf 2017; MIT). Mean and deviation over all train pixels."""

    name = "fashionmnist"
    torchvision_name = "FashionMNIST"
    classes = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip
    channels, size = 1, 28
    own_mean, own_std = (0.2860,), (0.3530,)
