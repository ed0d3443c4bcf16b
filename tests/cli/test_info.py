"""`cnnbench info`: its tables, warnings and errors."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cnnbench.__main__ import main
from cnnbench.cli.info import describe
from cnnbench.config.compose import compose, conf_dir, groups
from cnnbench.training.factories import build_net, data_for_net

NAMES = sorted(file.stem for file in (conf_dir() / "model").glob("*.yaml") if file.stem != "custom")
GOLDEN = Path(__file__).parents[1] / "models" / "golden.json"
REGENERATE = "cnnbench info --all --json data=cifar10 > tests/models/golden.json"
GOLDEN_KEYS = ("params", "buffers", "macs", "book_flops", "activations", "receptive_field", "weight_layers")
COUNTS = ("params", "macs", "book_flops", "activations")
CUSTOM = "model=custom model._target_=nets."


@pytest.fixture
def info(capsys, monkeypatch, tmp_path):
    """Runs the command in an empty folder, without data: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CNNBENCH_DATA", f"{tmp_path}/none")

    def run(arguments: str) -> tuple[int, str, str]:
        code = main(["info", *arguments.split()])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def table_of(text: str) -> list[list[str]]:
    """The rows of the table below its heads: down to the total, or to the end for a net that failed."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("layer "))
    end = next((number for number, line in enumerate(lines) if line.startswith("total ")), len(lines))
    return [re.split(r"  +", line) for line in lines[start + 1 : end + 1]]


# ---- one net ------------------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_layer_in_order_and_the_totals(info):
    code, out, err = info("model=lenet5")
    *rows, total = table_of(out)
    assert (code, err) == (0, "")
    names = "conv1 act1 pool2 conv3 act3 pool4 conv5 act5 flatten linear6 act6 linear7".split()
    assert [row[0] for row in rows] == names
    assert rows[3] == ["conv3", "Conv2d", "16×10×10", "2,416", "240,000", "241,600", "1,600", "14", "2"]
    assert rows[8] == ["flatten", "Flatten", "120", "0", "0", "0", "120", "32", "all"]
    assert total == ["total", "61,706", "416,520", "423,344", "14,722"]


def test_the_first_line_names_the_net_and_its_images(info):
    assert info("model=lenet5 data=cifar10")[1].startswith("LeNet5 on images of 3×32×32, 10 classes\n")


def test_running_statistics_are_printed_below_the_total(info):
    out = info("model=resnet18 model.stem=imagenet model.stem_bias=true data=mnist data.image_size=32")[1]
    assert "with 9,600 running statistics of batch norm: 11,185,034 numbers\n" in out


def test_json_holds_layers_totals_and_warnings(info):
    code, out, _ = info("model=lenet5 --json")
    facts = json.loads(out)
    assert (code, facts["schema"]) == (0, 1)
    assert {"model", "net", "image", "num_classes", "layers", "totals", "warnings", "parameters"} <= set(facts)
    assert "failure" not in facts
    assert facts["layers"][0] == {
        "name": "conv1",
        "type": "Conv2d",
        "input": [1, 32, 32],
        "output": [6, 28, 28],
        "params": 156,
        "macs": 117_600,
        "book_flops": 122_304,
        "activations": 4_704,
        "receptive_field": 5,
        "stride": 1,
    }
    assert facts["layers"][-1]["stride"] is None
    assert [facts["totals"][key] for key in COUNTS] == [61_706, 416_520, 423_344, 14_722]


def test_jsons_memory_is_that_of_a_training_step_with_the_runs_optimizer_and_batch(info):
    memory = json.loads(info("model=lenet5 optimizer=adam batch_size=10 --json")[1])["totals"]["memory_bytes"]
    weights = 4 * 61_706
    assert (memory["weights"], memory["gradients"]) == (weights, weights)
    assert memory["optimizer"] == 2 * weights + 4 * 10
    assert memory["activations"] == 10 * 45_888 + 4  # counted by hand in tests/complexity/test_memory.py
    assert memory["total"] == sum(value for key, value in memory.items() if key != "total")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["lenet5", "googlenet model.aux_heads=true"])
def test_csv_adds_up_to_jsons_totals(info, model):
    rows = list(csv.DictReader(io.StringIO(info(f"model={model} data=cifar10 --csv")[1])))
    facts = json.loads(info(f"model={model} data=cifar10 --json")[1])
    assert [row["name"] for row in rows] == [layer["name"] for layer in facts["layers"]]
    assert {key: sum(int(row[key]) for row in rows) for key in COUNTS} == {key: facts["totals"][key] for key in COUNTS}


def test_csv_leaves_a_cell_empty_where_there_is_no_number(info):
    rows = list(csv.DictReader(io.StringIO(info("model=lenet5 --csv")[1])))
    assert (rows[0]["output"], rows[0]["stride"], rows[-1]["stride"]) == ("6×28×28", "1", "")


def test_params_lists_every_parameter_with_its_shape_and_distribution(info):
    out = info("model=lenet5 --params")[1]
    rows = [re.split(r"  +", line) for line in out.splitlines()[3:]]
    assert rows[0] == ["conv1.weight", "6×1×5×5", "150", "U(-0.2, 0.2)"]
    assert rows[1] == ["conv1.bias", "6", "6", "U(-0.2, 0.2)"]
    names = [f"{layer}.{kind}" for layer in "conv1 conv3 conv5 linear6 linear7".split() for kind in ("weight", "bias")]
    assert [row[0] for row in rows] == [*names, "total"]
    assert rows[-1] == ["total", "61,706"]


def test_without_data_nothing_is_read_or_written(info, tmp_path):
    assert info(f"model=lenet5 data=cifar10 data.root={tmp_path}/none")[0] == 0
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("net", ["Linear", "NoMeta", "Ragged"])
def test_a_users_net_has_a_table_too(info, net):
    code, out, err = info(f"{CUSTOM}{net}")
    assert (code, err) == (0, "")
    assert out.startswith(f"{net} on images of 1×28×28, 10 classes\n")
    if net != "Ragged":
        assert table_of(out)[-1] == ["total", "7,850", "7,840", "7,840", "10"]


def test_a_users_nets_argument_is_used(info):
    assert table_of(info(f"{CUSTOM}Linear +model.hidden=20")[1])[-1][1] == f"{784 * 20 + 20 + 20 * 10 + 10:,}"


class Largest(TorchDispatchMode):
    """Records the bytes of the largest tensor in memory."""

    nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [t.nbytes for t in tree_leaves(result) if isinstance(t, Tensor) and t.device.type != "meta"]
        self.nbytes = max([self.nbytes, *sizes])
        return result


def test_the_largest_net_uses_no_memory():
    config = compose(["model=vgg19", "data=cifar10", "data.image_size=224", "batch_size=256", "init=kaiming_normal"])
    with Largest() as largest:
        facts = describe(config)
    assert facts["totals"]["memory_bytes"]["total"] > 20e9
    assert largest.nbytes < 1e6


def test_the_test_above_would_detect_a_net_in_memory():
    with Largest() as largest:
        build_net(config := compose(["model=lenet5"]), data_for_net(config))
    assert largest.nbytes == 4 * 120 * 16 * 25


# ---- all nets -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def only(monkeypatch):
    """A function that hides all files of conf/model/ except some."""

    def keep(*names: str) -> None:
        known = groups()
        known["model"] = {name: known["model"][name] for name in names}
        monkeypatch.setattr("cnnbench.config.compose.groups", lambda extra=None: known)

    return keep


@pytest.fixture
def three(only):
    """Hides all files of conf/model/ except three nets and custom."""
    only("custom", "lenet", "lenet5", "simplecnn")


def golden() -> dict[str, dict]:
    return {net["model"]: net for net in json.loads(GOLDEN.read_text())["nets"]}


def test_all_has_every_net_except_custom(info, monkeypatch):
    fixed = {**describe(compose([])), "failure": None}
    calls = []
    monkeypatch.setattr("cnnbench.config.compose.compose", lambda overrides, config_dir: calls.append(overrides[:-1]))
    monkeypatch.setattr("cnnbench.cli.info.describe", lambda config: dict(fixed))  # which nets, not what they are
    code, out, _ = info("--all --json data=cifar10 data.root=none")
    facts = json.loads(out)
    assert (code, facts["schema"], facts["left_out"]) == (0, 1, [])
    assert sorted(net["model"] for net in facts["nets"]) == NAMES
    assert calls == [["data=cifar10", "data.root=none"]] * len(NAMES)


DEEPER = (
    "plain34",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet110",
    "vgg13",
    "vgg16",
    "vgg19",
    "vgg_c",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in DEEPER else name for name in NAMES]
)
def test_a_nets_counts_are_the_golden_ones(info, only, name, tmp_path):
    only(name)
    (net,) = json.loads(info("--all --json data=cifar10")[1])["nets"]
    found, known = ({key: facts[key] for key in GOLDEN_KEYS} for facts in (net, golden().get(name, net)))
    assert found == known, f"if {name} is meant to have changed: {REGENERATE}"
    assert not list(tmp_path.rglob("*"))


def test_the_golden_counts_hold_every_file_of_conf_model():
    assert sorted(golden()) == NAMES, f"to rewrite them: {REGENERATE}"


def test_a_net_has_as_many_layers_as_its_name_says():
    names = [name for name in NAMES if re.fullmatch(r"(vgg|resnet|plain)\d+", name)]
    assert len(names) > 10
    for name in names:
        assert golden()[name]["weight_layers"] == int(re.sub(r"\D", "", name)), name


@pytest.mark.usefixtures("three")
def test_all_as_a_table_has_a_row_for_each_net(info):
    code, out, err = info("--all data=cifar10")
    rows = [re.split(r"  +", line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [row[0] for row in rows] == ["model", "lenet", "lenet5", "simplecnn"]
    assert rows[2][:7] == ["lenet5", "3×32×32", "5", "62,006", "651,720", "658,544", "14,722"]


@pytest.mark.usefixtures("three")
def test_all_as_csv_has_the_numbers_of_json(info):
    rows = list(csv.DictReader(io.StringIO(info("--all --csv data=cifar10")[1])))
    nets = json.loads(info("--all --json data=cifar10")[1])["nets"]
    keys = [*COUNTS, "weight_layers", "receptive_field", "memory_bytes"]
    assert [[int(row[key]) for key in keys] for row in rows] == [[net[key] for key in keys] for net in nets]
    assert [row["image"] for row in rows] == ["3×32×32"] * 3


@pytest.mark.usefixtures("three")
def test_all_leaves_out_nets_that_do_not_accept_the_images_with_the_reason(info):
    code, out, _ = info("--all data=cifar10 data.image_size=16")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if line] == ["model", "lenet", "simplecnn", "lenet5:"]
    assert out.splitlines()[-1].startswith("lenet5: data.image_size=16: LeNet5 takes images of 32×32 pixels")


@pytest.mark.usefixtures("three")
def test_if_no_net_accepts_the_images_all_fails_in_one_line(info):
    code, out, err = info("--all data=cifar10 data.image_size=4")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("cnnbench: data.image_size=4: ")


def test_a_net_with_another_number_of_outputs_gets_a_warning(info):
    _, out, _ = info(f"{CUSTOM}WrongOutput data=synthetic data.image_size=28")
    assert (
        "note: the net's output is 7 numbers per image, expected 10, one per class; let its constructor take num_classes"
        in out
    )


def test_a_net_for_other_channels_is_refused_without_a_table(info):
    code, out, err = info("model=custom model._target_=torchvision.models.resnet18")
    assert (code, err.count("\n")) == (2, 1)
    assert "conv1 (Conv2d): expects 3 channels, but the images have 1" in err
    assert "total" not in out


def test_a_net_that_fits_its_images_has_no_warnings(info):
    facts = json.loads(info("model=lenet5 --json")[1])
    assert facts["warnings"] == []
    assert "note:" not in info("model=lenet5")[1]


def test_warnings_are_below_the_table_and_in_json(info):
    out = info(f"{CUSTOM}Ragged data=synthetic data.image_size=10")[1]
    notes = [line for line in out.splitlines() if line.startswith("note: ")]
    (line,) = json.loads(info(f"{CUSTOM}Ragged data=synthetic data.image_size=10 --json")[1])["warnings"]
    assert notes == [f"note: {line}"]
    assert "= 4.5; the last row and column are never seen" in line


# ---- what goes wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["", "--json", "--csv"])
@pytest.mark.parametrize(("knob", "layer"), [("", "Conv2d"), ("+model.pool=true", "MaxPool2d")])
def test_a_net_that_shrinks_its_images_to_nothing_prints_its_rows_up_to_there(info, form, knob, layer):
    code, out, err = info(f"{CUSTOM}Shrinking {knob} {form}")
    assert code == 2
    assert [row[0] for row in table_of(out)] == ["features.0", "features.1", "features.2", "features.3"]
    assert err.startswith(f"cnnbench: last ({layer}): a 3×3 window does not fit its 2×2 input: ")
    assert "an image of 28×28" in err
    assert err.count("\n") == 1


def test_the_same_net_runs_on_larger_images(info):
    assert info(f"{CUSTOM}Shrinking data=synthetic data.image_size=40")[0] == 0


def test_a_layer_that_gets_a_wrong_shape_is_named(info):
    code, _, err = info(f"{CUSTOM}WrongInput")
    assert code == 2
    assert err.startswith(
        "cnnbench: linear (Linear): does not accept 784, the shape of an image of 28×28 at this layer: "
    )
    assert err.count("\n") == 1


def test_a_knob_that_makes_a_net_shrink_its_images_to_nothing_is_one_line(info):
    code, out, err = info("model=lenet_leaky model.stride=2")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "an image of 28×28 pixels shrinks to nothing: a 2×2 window meets a map of 1×1" in err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("model=vgg61", "cnnbench: model=vgg61: no such model; did you mean vgg"),
        ("--all model=vgg11", "cnnbench: info --all: compares every model; leave model=... out"),
        ("--jsn", "cnnbench: --jsn: no such flag; type cnnbench info --help"),
        ("--json --csv", "cnnbench: argument --csv: not allowed with argument --json; "),
        ("lenet5", "cnnbench: lenet5: expected key=value, as in seed=1"),
        (
            "model.depth=3",
            "cnnbench: model.depth: LeNet5 has no depth; it has: kernel_size, stride, activation, pooling",
        ),
        ("data.image_size=16", "cnnbench: data.image_size=16: LeNet5 takes images of 32×32 pixels"),
        ("model=custom", "cnnbench: model._target_: a value is missing; for a net of your own: "),
    ],
)
def test_a_mistake_gives_one_line(info, arguments, line):
    code, out, err = info(arguments)
    assert (code, out) == (2, "")
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_the_table_is_printed_also_if_batch_norm_cannot_train_on_the_batch(info):
    code, out, err = info("model=resnet18 model.stem=imagenet batch_size=1 data=cifar10")
    assert code in (0, 2)
    assert table_of(out)[-1][0] == "total"
    assert err.count("\n") == (code == 2)
