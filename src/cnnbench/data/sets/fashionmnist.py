"""FashionMNIST."""

from cnnbench.data.sets.idx import IdxData, idx_remotes


class FashionMNIST(IdxData):
    """60,000 + 10,000 pictures of clothes, 28×28 in grey."""

    name = "fashionmnist"
    folder_name = "FashionMNIST"
    classes = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip
    own_mean, own_std = (0.2860,), (0.3530,)
    licence = "MIT"
    origin = "Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747; https://github.com/zalandoresearch/fashion-mnist"
    remotes = idx_remotes(
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        (26_421_880, "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        (29_515, "md5:25c81989df183df01b3e8a0aad5dffbe"),
        (4_422_102, "md5:bef4ecab320f06d8554ea6380940ec79"),
        (5_148, "md5:bb300cfdad3c16e7a12a480ee83cd310"),
    )
