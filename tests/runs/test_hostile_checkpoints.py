"""A checkpoint from somebody else is loaded, or refused in one line: no hang, no memory for what it only claims, no traceback."""

from __future__ import annotations

import os
import struct
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnbench.__main__ import main
from cnnbench.runs.load_net import load_net


@pytest.fixture(scope="session")
def picture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "digit.png"
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(path)
    return path


@pytest.fixture
def refusal(copied, picture, capsys):
    """Predicts with the copied run; returns the line with which it is refused, after at most ten seconds of processor time."""

    def predict(*flags: str) -> str:
        capsys.readouterr()
        began = time.process_time()
        code = main(["predict", str(copied.path), str(picture), *flags])
        out, error = capsys.readouterr()
        assert (code, out, error.count("\n")) == (2, "", 1), (code, out, error)
        assert error[:-1].isprintable()
        assert time.process_time() - began < 10
        return error

    return predict


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


# ---- values that are no tensors ------------------------------------------------------------------------------------------


NESTED = "a list that is nested 100,000 deep, which Python cannot pickle"


def nest(path: Path) -> None:
    """Replaces the text `NESTED` in a checkpoint by the list."""
    text = NESTED.encode()
    pickled, deep = b"X" + struct.pack("<I", len(text)) + text, b"]" * 100_001 + b"a" * 100_000
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            start = content.find(pickled)
            if start >= 0:  # without what follows, which stores the text for a second use
                end = start + len(pickled) + (2 if content[start + len(pickled) :][:1] == b"q" else 5)
                content = content[:start] + deep + content[end:]
            archive.writestr(name, content)


def doubled(times: int) -> list:
    value: list = [0]
    for _ in range(times):
        value = [value, value]
    return value


def cyclic() -> list:
    value: list = []
    value.append(value)
    return value


TEN = list("0123456789")
FACTS = {
    "channels": [0, -1, 2, 3, 10**6, 10**12, 1.5, True, None, "1", [1], float("nan")],
    "classes": [
        [],
        None,
        "0123456789",
        {"0": 1},
        list(range(10)),
        TEN[:9],
        [*TEN, "ten"],
        [["0"]] * 10,
        10,
        [None] * 10,
    ],
    "image_size": [-1, 0, 1, 5, 31, 64, 20_000, 10**12, 32.5, True, None, "32", [32, 32]],
    "mean": [[], None, 0.5, [0.5] * 3, [float("nan")], [float("inf")], ["0.5"], [None], [[0.5]], [True], [0.2]],
    "std": [[], None, 0.5, [0.5] * 3, [0.0], [-1.0], [float("nan")], [float("inf")], ["x"], [1j], [0.2]],
    "fit": ["", "crop it", None, 1, ["pad"]],
}


@pytest.mark.parametrize(("fact", "value"), [(fact, value) for fact, values in FACTS.items() for value in values])
def test_a_wrong_fact_of_the_data_is_one_line(refusal, copied, fact, value):
    edit(copied.best, lambda content: content["data"].update({fact: value}))
    assert f"{copied.best}: not a checkpoint that cnnbench wrote (" in refusal()


@pytest.mark.parametrize("make", [lambda: NESTED, lambda: doubled(60), cyclic], ids=["nested", "doubled", "cyclic"])
@pytest.mark.parametrize("at", ["config", "data", "model", "data of config", "mean", "classes", "swept"])
def test_nested_values_are_one_line(refusal, copied, at, make):
    def change(content: dict) -> None:
        config, data = content["config"], content["data"]
        holder, name = {
            "config": (content, "config"),
            "data": (content, "data"),
            "model": (config["model"], "argument"),
            "data of config": (config["data"], "argument"),
            "mean": (data, "mean"),
            "classes": (data, "classes"),
            "swept": (config, "swept"),
        }[at]
        holder[name] = make()

    edit(copied.best, change)
    nest(copied.best)
    refusal()


@pytest.mark.parametrize("name", ["config", "data", "state_dict"])
@pytest.mark.parametrize("value", [None, [], {}, 1, "x", torch.zeros(3), float("nan"), {1: 2}, {"a": "b"}], ids=repr)
def test_a_part_of_the_wrong_kind_is_one_line(refusal, copied, name, value):
    edit(copied.best, lambda content: content.update({name: value}))
    refusal()


@pytest.mark.parametrize("name", ["config", "data", "state_dict"])
def test_a_part_that_is_absent_is_one_line(refusal, copied, name):
    edit(copied.best, lambda content: content.pop(name))
    assert f"KeyError: '{name}'" in refusal()


@pytest.mark.parametrize("content", [[], 1, "x", torch.zeros(3), None, (1, 2)], ids=repr)
def test_a_file_with_other_content_is_one_line(refusal, copied, content):
    torch.save(content, copied.best)
    assert "expected a dict" in refusal()


def test_further_parts_of_a_checkpoint_are_ignored(copied):
    edit(copied.best, lambda content: content.update(later="x"))
    load_net(copied.path)


# ---- what a config builds ------------------------------------------------------------------------------------------------


NETS = {
    "depth": {"_target_": "cnnbench.models.cifar_resnet.CifarResNet", "depth": 60_000_002},
    "depth as float": {"_target_": "cnnbench.models.cifar_resnet.CifarResNet", "depth": 6e7},
    "width": {"_target_": "cnnbench.models.cifar_resnet.CifarResNet", "width": 10**9},
    "blocks": {"_target_": "torchvision.models.ResNet", "block": "x", "layers": [10**9]},
    "dense blocks": {"_target_": "torchvision.models.DenseNet", "block_config": [10**6]},
    "many dense blocks": {"_target_": "torchvision.models.DenseNet", "block_config": [10**9]},
    "stages": {
        "_target_": "torchvision.models.ShuffleNetV2",
        "stages_repeats": [10**6] * 3,
        "stages_out_channels": [1] * 5,
    },
    "no memory": {"_target_": "torchvision.models.MaxVit", "block_layers": [10**12]},
    "patches": {
        "_target_": "torchvision.models.VisionTransformer",
        "patch_size": 1,
        "num_layers": 10**6,
        "num_heads": 1,
        "hidden_dim": 1000,
        "mlp_dim": 10**6,
    },
    "linear": {"_target_": "torch.nn.Linear", "in_features": 10**9, "out_features": 10**9},
    "wide linear": {"_target_": "torch.nn.Linear", "in_features": 10**6, "out_features": 10**6},
    "kernel": {"_target_": "torch.nn.Conv2d", "out_channels": 10, "kernel_size": 10**6},
    "padding": {"_target_": "torch.nn.Conv2d", "out_channels": 10, "kernel_size": 1, "padding": 10**6},
    "embedding": {"_target_": "torch.nn.Embedding", "num_embeddings": 10**6, "embedding_dim": 10**6},
    "lazy": {"_target_": "torch.nn.LazyLinear", "out_features": 10**6},
    "infinite": {"_target_": "torch.nn.Dropout", "p": float("inf")},
    "nan": {"_target_": "cnnbench.models.vgg.VGG", "width": float("nan")},
    "device": {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 10, "device": "cuda"},
    "on meta": {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 10, "device": "meta"},
    "no layer": {"_target_": "torch.nn.Identity"},
    "a container": {"_target_": "torch.nn.ModuleDict", "modules": {"a": 1}},
    "a loss": {"_target_": "torch.nn.CrossEntropyLoss"},
    "parallel": {"_target_": "torch.nn.DataParallel", "module": "x"},
    "a transformer": {"_target_": "torch.nn.Transformer", "d_model": 10**6, "num_encoder_layers": 10**6},
    "a recurrent net": {"_target_": "torch.nn.LSTM", "input_size": 3, "hidden_size": 3, "num_layers": 10**6},
    "another net": {"_target_": "cnnbench.models.lenet.LeNet"},
    "no such argument": {"_target_": "cnnbench.models.lenet5.LeNet5", "evil": 1},
    "a node": {"_target_": "cnnbench.models.lenet5.LeNet5", "conv": {"_target_": "os.system", "command": "false"}},
    "_args_": {"_target_": "cnnbench.models.lenet5.LeNet5", "_args_": [1]},
    "_partial_": {"_target_": "cnnbench.models.lenet5.LeNet5", "_partial_": True},
    "_recursive_": {"_target_": "cnnbench.models.lenet5.LeNet5", "_recursive_": False},
    "__class__": {"_target_": "cnnbench.models.lenet5.LeNet5", "__class__": "x"},
    "a registered name": {"_target_": "torchvision.models.get_model", "name": ["x"]},
    "no registered name": {"_target_": "torchvision.models.get_model", "name": "os.system"},
    "no name": {"_target_": "torchvision.models.get_model"},
    "regnet": {"_target_": "torchvision.models.regnet_y_400mf", "stem_width": 10**6},
    "detection": {"_target_": "torchvision.models.detection.fasterrcnn_resnet50_fpn", "weights": "DEFAULT"},
    "segmentation": {"_target_": "torchvision.models.segmentation.fcn_resnet50"},
    "quantized": {"_target_": "torchvision.models.quantization.resnet18", "quantize": True, "weights": "DEFAULT"},
    "an extractor": {"_target_": "cnnbench.models.feature_extraction.Extractor", "net": "x", "names": []},
    "a classifier": {"_target_": "cnnbench.training.classifier.Classifier", "net": "x"},
}


@pytest.mark.parametrize("node", NETS.values(), ids=NETS)
def test_a_net_that_is_not_that_of_the_weights_is_one_line(refusal, copied, node, no_network):
    edit(copied.best, lambda content: content["config"].update(model=node))
    refusal()


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Lets nothing be downloaded, and torch find no file that it has downloaded before."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda url, *_, **__: pytest.fail(f"downloads {url}"))


def test_a_deep_net_is_refused_while_it_is_built(refusal, copied):
    edit(copied.best, lambda content: content["config"].update(model=NETS["dense blocks"]))
    assert "has more than 1," in refusal()


def test_millions_of_classes_are_one_line(refusal, copied):
    edit(copied.best, lambda content: content["data"].update(classes=["x"] * 3_000_000))
    assert "more than 1,000,000 values" in refusal()


# ---- weights -------------------------------------------------------------------------------------------------------------


def filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda weight: torch.full_like(weight, value)


WEIGHTS = {
    "nan": filled(float("nan")),
    "inf": filled(float("inf")),
    "one nan": lambda weight: weight.flatten().index_fill(0, torch.tensor([0]), float("nan")).view_as(weight),
    "complex": lambda weight: weight.to(torch.complex64),
    "float64": lambda weight: weight.double(),
    "half": lambda weight: weight.half(),
    "integer": lambda weight: weight.to(torch.int64),
    "bool": lambda weight: weight > 0,
    "float8": lambda weight: weight.to(torch.float8_e4m3fn),
    "quantized": lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
    "sparse": lambda weight: weight.to_sparse(),
    "sparse rows": lambda weight: weight.flatten(1).to_sparse_csr(),
    "meta": lambda weight: weight.to("meta"),
    "0-d": lambda weight: weight.sum(),
    "empty": lambda weight: weight[:0],
    "transposed": lambda weight: weight.transpose(0, 1).contiguous(),
    "a larger one": lambda weight: torch.cat([weight, weight]),
    "a claim of terabytes": lambda weight: torch.zeros(1).expand(10**6, 10**6),
    "nested": lambda weight: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "a list": lambda weight: weight.tolist(),
    "a number": lambda weight: 0.5,
    "none": lambda weight: None,
    "a name": lambda weight: "weight",
    "a dict": lambda weight: {"weight": weight},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_of_another_kind_are_one_line(refusal, copied, change):
    name = "conv1.weight"
    edit(copied.best, lambda content: content["state_dict"].update({name: change(content["state_dict"][name])}))
    refusal()


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.pop("conv1.weight"),
        lambda weights: weights.update(extra=torch.zeros(1)),
        lambda weights: weights.update({1: torch.zeros(1)}),
        lambda weights: weights.update({"conv1.weight\n\x1b[2J": torch.zeros(1)}),
        lambda weights: weights.update({f"layer{number}": torch.zeros(1) for number in range(2000)}),
        lambda weights: [weights.pop(name) for name in list(weights)],
    ],
    ids=["absent", "extra", "a number as name", "control characters", "many", "none"],
)
def test_weights_of_other_names_are_one_line(refusal, copied, change):
    edit(copied.best, lambda content: change(content["state_dict"]))
    refusal()


@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight.clone().requires_grad_(),
        lambda weight: torch.nn.Parameter(weight),
        lambda weight: torch.stack([weight, weight])[1],
        lambda weight: weight.to(memory_format=torch.channels_last),
    ],
    ids=["requires grad", "parameter", "a view", "channels last"],
)
def test_the_same_numbers_in_another_form_are_the_same_net(copied, change):
    before = load_net(copied.path)[0].state_dict()
    weights = torch.load(copied.best, weights_only=True)["state_dict"]
    changed = OrderedDict((name, change(value) if value.ndim == 4 else value) for name, value in weights.items())
    edit(copied.best, lambda content: content.update(state_dict=changed))
    after = load_net(copied.path)[0].state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_with_trust_a_checkpoint_is_checked_as_well(refusal, copied):
    edit(copied.best, lambda content: content["state_dict"]["conv1.weight"].fill_(float("nan")))
    assert "conv1.weight has numbers that are infinite or NaN" in refusal("--trust")


# ---- files ---------------------------------------------------------------------------------------------------------------


def bomb(path: Path, folder: str = "best") -> None:
    """Compresses a storage of 2 GB of zeros into 2 MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr(f"{folder}/data.pkl", b"\x80\x02}q\x00.")
        with archive.open(f"{folder}/data/0", "w", force_zip64=True) as member:
            for _ in range(64):
                member.write(bytes(1 << 20))


def overlapping(path: Path) -> None:
    """Lists one stored member of 100 kB a thousand times."""
    content, name = bytes(100_000), b"best/data/0"
    local = struct.pack(
        "<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, zipfile.crc32(content), len(content), len(content), len(name), 0
    )
    entry = struct.pack(
        "<4s6H3I5H2I",
        b"PK\1\2",
        20,
        20,
        0,
        0,
        0,
        0,
        zipfile.crc32(content),
        len(content),
        len(content),
        len(name),
        0,
        0,
        0,
        0,
        0,
        0,
    )
    head, listing = local + name + content, (entry + name) * 1000
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1000, 1000, len(listing), len(head), 0)
    path.write_bytes(head + listing + end)


def large_pickle(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("best/data.pkl", b"\x80\x02" + b"]" * (20 << 20) + b".")


def flip(path: Path) -> None:
    """Flips a bit of a weight, which only the checksum shows."""
    content = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=True)["state_dict"]["conv1.weight"].numpy().tobytes()
    content[content.index(weight) + 2] ^= 1
    path.write_bytes(content)


def sparse_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 43)


def replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


FILES = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("x" * 1000),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a flipped bit": flip,
    "only zip": lambda path: zipfile.ZipFile(path, "w").close(),
    "a bomb": bomb,
    "overlapping members": overlapping,
    "a large pickle": large_pickle,
    "a sparse file": sparse_file,
    "a FIFO": replaced(os.mkfifo),
    "a folder": replaced(Path.mkdir),
    "a device": replaced(lambda path: path.symlink_to("/dev/zero")),
    "a terminal": replaced(lambda path: path.symlink_to("/dev/tty")),
    "a link to itself": replaced(lambda path: path.symlink_to(path)),
    "a link to nothing": replaced(lambda path: path.symlink_to("nothing")),
    "the old format": lambda path: torch.save({}, path, _use_new_zipfile_serialization=False),
    "TorchScript": lambda path: torch.jit.script(torch.nn.ReLU()).save(str(path)),
}


@pytest.mark.skipif(sys.platform == "win32", reason="needs FIFOs and links")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", FILES.values(), ids=FILES)
def test_a_file_that_is_no_checkpoint_is_one_line(refusal, copied, change):
    change(copied.best)
    assert str(copied.best) in refusal()
