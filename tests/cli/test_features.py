"""`cnnbench features`: the feature maps of a layer for an image, drawn next to the first filters."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from cnnbench.__main__ import main
from cnnbench.cli.features import MOST, draw_features, feature_maps, first_convolution
from cnnbench.config.compose import compose
from cnnbench.data.image_files import read_image
from cnnbench.data.sets.mnist5k import MNIST5k
from cnnbench.errors import ConfigError
from cnnbench.models.googlenet import GoogLeNet
from cnnbench.models.lenet5 import LeNet5
from cnnbench.models.simplecnn import SimpleCNN
from cnnbench.runs.load_net import load_net
from cnnbench.runs.preprocess import to_input
from cnnbench.runs.run_dir import RunDir

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """(28, 28) uint8: a digit of the run's test split."""
    return MNIST5k().read("test").pixels[0, 0].numpy()


@pytest.fixture
def digit(pixels, tmp_path) -> Path:
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Runs `features` with these arguments in an empty folder: exit code, stdout, stderr."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments) -> tuple[int, str, str]:
        code = main(["features", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """Collects the figures that are saved instead of writing them."""
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: saved.append(figure))
    return saved


def untrained(folder: Path, net: nn.Module, *overrides: str, channels: int = 3, side: int = 32) -> RunDir:
    """The directory of a run with the untrained `net`."""
    directory = RunDir.create(folder / "runs", "untrained")
    config = compose([*overrides, "data=synthetic", f"data.channels={channels}", "data.num_classes=4"])
    directory.config.write_text(config.dump())
    normalised = {"mean": channels * [0.5], "std": channels * [0.25]}
    facts = {"channels": channels, "classes": list("abcd"), "image_size": side, **normalised}
    content = {"schema": 1, "state_dict": net.state_dict(), "config": config.as_dict(), "data": facts}
    torch.save(content, directory.best)
    return directory


@pytest.fixture
def colour_run(tmp_path) -> RunDir:
    torch.manual_seed(0)
    net = SimpleCNN(in_channels=3, num_classes=4, image_size=16)
    return untrained(tmp_path, net, "model=simplecnn", side=16)


def maps_by_hand(run: RunDir, layer: str, pixels: np.ndarray) -> torch.Tensor:
    """The output of LeNet-5's `layer` for a 28×28 digit, its layers called in sequence."""
    net, facts = load_net(run.path)
    image = torch.from_numpy(pixels)[None, None]
    x = nn.functional.interpolate(image, (32, 32), mode="bilinear", antialias=True).float() / 255
    x = (x - facts["mean"][0]) / facts["std"][0]
    with torch.no_grad():
        for name, module in net.named_children():
            x = module(x)
            if name == layer:
                return x[0]
    raise AssertionError(f"LeNet-5 has no {layer}")


def assert_refused(result: tuple[int, str, str], *words: str) -> None:
    """Asserts exit code 2, one line on stderr with these words, and no file written."""
    code, out, error = result
    assert (code, out) == (2, "")
    assert error.startswith("cnnbench: ")
    assert error.count("\n") == 1
    assert [word for word in words if word not in error] == []
    assert not [*Path().iterdir()]


def pictured(figure) -> list:
    """The axes that hold an image."""
    return [axes for axes in figure.get_axes() if axes.get_images()]


def titles(figure) -> list[str]:
    """The headings of a figure's parts."""
    return [title for part in figure.subfigs for title in [part.get_suptitle(), *titles(part)]]


# ---- the command --------------------------------------------------------------------------------------------------


def test_the_first_convolutions_maps_are_drawn_by_default(command, finished, digit):
    code, _, error = command(finished.path, digit)
    assert (code, error) == (0, "")
    assert [path.name for path in Path().iterdir()] == ["features_conv1.png"]
    assert Path("features_conv1.png").read_bytes().startswith(PNG)
    with Image.open("features_conv1.png") as drawn:
        assert 600 < drawn.height < drawn.width < 3000
        assert np.asarray(drawn.convert("L")).std() > 20


def test_layer_shape_and_range_are_printed(command, finished, digit, pixels, figures):
    _, out, _ = command(finished.path, digit)
    maps = maps_by_hand(finished, "conv1", pixels)
    found = re.fullmatch(r"features_conv1\.png: conv1 gives 6×28×28, from (\S+) to (\S+)\n", out)
    assert [float(number) for number in found.groups()] == pytest.approx(
        [maps.min().item(), maps.max().item()], rel=1e-2
    )


@pytest.mark.parametrize(("layer", "shape"), [("pool2", "6×14×14"), ("act3", "16×10×10"), ("linear7", "10")])
def test_the_given_layer_is_drawn(command, finished, digit, figures, layer, shape):
    code, out, _ = command(finished.path, digit, "--layer", layer)
    assert code == 0
    assert out.startswith(f"features_{layer}.png: {layer} gives {shape}, from ")
    assert f"{layer}, {shape}" in titles(figures[0])


@pytest.mark.parametrize(("layer", "bars"), [("linear7", 10), ("conv5", 120)])
def test_single_numbers_are_drawn_as_bars(command, finished, digit, figures, pixels, layer, bars):
    assert command(finished.path, digit, "--layer", layer)[0] == 0
    axes = figures[0].get_axes()[-1]
    assert not axes.get_images()
    heights = [patch.get_height() for patch in axes.patches]
    assert heights == pytest.approx(maps_by_hand(finished, layer, pixels).flatten().tolist(), abs=1e-5)
    assert len(heights) == bars


def test_the_image_the_filters_and_the_maps_have_axes(command, finished, digit, figures):
    command(finished.path, digit)
    assert len(pictured(figures[0])) == 1 + 6 + 6


def test_out_is_the_file_of_the_figure(command, finished, digit, tmp_path):
    code, out, _ = command(finished.path, digit, "--out", tmp_path / "mine.png")
    assert code == 0
    assert out.startswith(f"{tmp_path / 'mine.png'}: conv1 gives ")
    assert (tmp_path / "mine.png").read_bytes().startswith(PNG)
    assert not [*Path().iterdir()]


def test_a_name_that_ends_in_svg_gives_an_svg(command, finished, digit):
    assert command(finished.path, digit, "--out", "x.svg")[0] == 0
    assert "<svg" in Path("x.svg").read_text(encoding="utf-8")


def test_invert_undoes_an_inverted_picture(command, finished, digit, figures, pixels, tmp_path):
    Image.fromarray(255 - pixels).save(tmp_path / "inverted.png")
    command(finished.path, digit)
    command(finished.path, tmp_path / "inverted.png", "--invert")
    command(finished.path, tmp_path / "inverted.png")
    plain, undone, inverted = ([axes.get_images()[0].get_array() for axes in pictured(f)] for f in figures)
    assert all(np.array_equal(one, other) for one, other in zip(plain, undone, strict=True))
    assert not np.allclose(plain[-1], inverted[-1])


@pytest.mark.slow
def test_a_net_of_three_channels_gets_a_colour_image(command, colour_run, figures, tmp_path):
    Image.new("RGB", (20, 30), (255, 0, 0)).save(tmp_path / "x.png")
    code, out, _ = command(colour_run.path, tmp_path / "x.png")
    assert code == 0
    assert out.startswith("features_layer1.conv1.png: layer1.conv1 gives 32×16×16, ")
    filters = [axes.get_images()[0].get_array() for axes in pictured(figures[0])[1:33]]
    assert {array.shape for array in filters} == {(3, 3, 3)}


def test_the_run_is_not_changed(command, copied, digit, figures):
    before = {path: path.read_bytes() for path in copied.path.rglob("*") if path.is_file()}
    assert command(copied.path, digit)[0] == 0
    assert {path: path.read_bytes() for path in copied.path.rglob("*") if path.is_file()} == before


def test_warnings_of_an_image_decoder_are_hidden(command, finished, digit, figures, tmp_path):
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x05\x00"  # five entries in the header, none in the file: Pillow warns
    Image.open(digit).save(tmp_path / "odd.jpg", exif=exif)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        code, _, error = command(finished.path, tmp_path / "odd.jpg")
    assert (code, error) == (0, "")
    assert [str(warning.message) for warning in caught if warning.category is UserWarning] == []


def test_help_lists_the_options(capsys):
    with pytest.raises(SystemExit):
        main(["features", "--help"])
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("RUN_DIR", "IMAGE", "--layer", "--out", "--invert"))


# ---- mistakes -----------------------------------------------------------------------------------------------------


def test_what_is_no_run_directory_is_refused(command, digit, tmp_path):
    assert_refused(command(tmp_path / "absent", digit), f"{tmp_path / 'absent'}: not a run directory")


def test_the_folder_above_a_run_is_refused_with_the_run_in_it(command, finished, digit):
    assert_refused(command(finished.path.parent, digit), f"did you mean {finished.path}?")


def test_a_run_that_has_not_validated_yet_is_refused(command, copied, digit):
    copied.best.unlink()
    assert_refused(command(copied.path, digit), f"{copied.best}: absent; the run has not validated yet")


@pytest.mark.parametrize("name", ["absent.png", "."])
def test_a_picture_that_is_absent_or_a_folder_is_refused(command, finished, name):
    assert_refused(command(finished.path, name), f"{name}: no such picture")


@pytest.mark.parametrize(
    "content",
    [b"not a picture\n" * 20, b"", b"P5 is a paper", b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0cIHDR" + bytes(40)],
    ids=["text", "empty", "PGM", "PNG"],
)
def test_a_file_that_is_no_picture_is_refused(command, finished, tmp_path, content):
    (tmp_path / "odd.png").write_bytes(content)
    assert_refused(command(finished.path, tmp_path / "odd.png"), f"{tmp_path / 'odd.png'}: ")


def test_a_picture_that_was_cut_short_is_refused(command, finished, digit):
    digit.write_bytes(digit.read_bytes()[:-40])
    assert_refused(command(finished.path, digit), f"{digit}: damaged, or not a picture")


def test_a_picture_that_unpacks_to_more_than_memory_should_hold_is_refused(command, finished, digit, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert_refused(command(finished.path, digit), f"{digit}: damaged, or not a picture")


def test_an_unknown_layer_is_refused_with_the_nearest_and_all_others(command, finished, digit):
    assert_refused(
        command(finished.path, digit, "--layer", "liner7"),
        *("--layer: LeNet5 has no layer liner7; did you mean linear7?", "it has conv1, act1, pool2"),
    )


def test_an_out_without_suffix_is_refused(command, finished, digit):
    assert_refused(command(finished.path, digit, "--out", "x"), "--out x: expected a name that ends in .png")


def test_a_missing_folder_is_refused_before_the_net_is_loaded(command, finished, digit):
    assert_refused(
        command(finished.path, digit, "--out", "absent/x.png"), "--out absent/x.png: there is no folder absent"
    )


@pytest.mark.parametrize(
    ("name", "reason"), [("out.xyz", "expected a name that ends in"), ("folder.png", "cannot be written")]
)
def test_an_out_that_cannot_be_written_is_refused(command, finished, digit, tmp_path, name, reason):
    (tmp_path / "folder.png").mkdir()
    assert_refused(command(finished.path, digit, "--out", tmp_path / name), f"--out {tmp_path / name}: {reason}")


def test_a_full_disk_is_named_and_no_other_ending_is_asked_for(command, finished, digit, tmp_path):
    (tmp_path / "full.png").symlink_to("/dev/full")
    path = tmp_path / "full.png"
    line = f"--out {path}: cannot be written (No space left on device); type another file"
    assert_refused(command(finished.path, digit, "--out", path), line)


@pytest.mark.parametrize("arguments", [[], ["--nosuch"]])
def test_missing_or_unknown_arguments_are_refused(command, finished, arguments):
    assert_refused(command(finished.path, *arguments), "type cnnbench features --help")


@pytest.fixture
def dense_run(tmp_path) -> RunDir:
    """A run of a net without convolution."""
    from nets import Linear

    net = Linear(num_classes=4, in_channels=1, image_size=32)
    return untrained(tmp_path, net, "model=custom", "model._target_=nets.Linear", channels=1)


def test_a_net_without_convolution_asks_for_a_layer(command, dense_run, digit):
    assert_refused(command(dense_run.path, digit, "--trust"), "Linear has no convolution; name a layer with --layer")


def test_a_net_without_convolution_draws_the_given_layer(command, dense_run, digit):
    code, out, _ = command(dense_run.path, digit, "--layer", "net", "--trust")
    assert code == 0
    assert out.startswith("features_net.png: net gives 4, ")


# ---- maps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["conv1", "pool4", "conv5", "flatten", "linear7"])
def test_maps_equal_those_of_a_forward_by_hand(finished, digit, pixels, layer):
    net, facts = load_net(finished.path)
    found = feature_maps(net, layer, to_input(read_image(digit, 1), facts))
    torch.testing.assert_close(found, maps_by_hand(finished, layer, pixels), rtol=0, atol=1e-5)
    assert not found.requires_grad


def test_a_layer_that_does_not_run_in_evaluation_is_refused():
    net = GoogLeNet(aux_heads=True, in_channels=3, num_classes=10).eval()
    with pytest.raises(ConfigError, match="--layer: aux1: this layer does not run in evaluation"):
        feature_maps(net, "aux1", torch.zeros(3, 32, 32))


def test_a_layer_with_several_outputs_is_refused():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = Pair()

        def forward(self, x):
            return self.pair(x)[0]

    with pytest.raises(
        ConfigError, match="--layer pair: its output is a tuple, not a tensor; name a layer inside of it"
    ):
        feature_maps(Net(), "pair", torch.zeros(1, 4, 4))


def test_the_first_convolution_is_the_first_in_the_nets_order():
    assert first_convolution(LeNet5(in_channels=1, num_classes=10)) == "conv1"
    assert first_convolution(SimpleCNN(in_channels=3, num_classes=10)) == "layer1.conv1"
    assert first_convolution(nn.Sequential(nn.Linear(3, 3), nn.Conv1d(1, 1, 3), nn.Conv2d(1, 1, 3))) == "2"


# ---- the drawing --------------------------------------------------------------------------------------------------


def drawn(maps: torch.Tensor, kernels: torch.Tensor) -> Figure:
    return draw_features(Image.new("L", (8, 8), 100), maps, "some.layer", kernels, "conv1")


def shown(figure: Figure) -> list[np.ndarray]:
    """The arrays of the axes with an image: the input image, the filters, the maps."""
    return [np.asarray(axes.get_images()[0].get_array()) for axes in pictured(figure)]


@pytest.mark.slow
@pytest.mark.parametrize(("filters", "maps"), [(1, 1), (6, 6), (7, 5), (16, 10), (MOST, MOST)])
def test_every_filter_and_every_map_has_axes(filters, maps):
    values, kernels = torch.randn(maps, 5, 4), torch.randn(filters, 1, 3, 3)
    images = shown(drawn(values, kernels))
    assert len(images) == 1 + filters + maps
    assert all(np.array_equal(image, kernel[0]) for image, kernel in zip(images[1:], kernels, strict=False))
    assert all(np.array_equal(image, value) for image, value in zip(images[1 + filters :], values, strict=True))


@pytest.mark.slow
def test_of_too_many_maps_and_filters_the_first_are_drawn():
    values = torch.randn(MOST + 6, 2, 2)
    figure = drawn(values, torch.randn(MOST + 1, 1, 3, 3))
    images = shown(figure)
    assert len(images) == 1 + 2 * MOST
    assert np.array_equal(images[-1], values[MOST - 1])
    assert f"some.layer, {MOST + 6}×2×2: the first {MOST}" in titles(figure)


def test_shapes_of_maps_and_filters_are_in_the_titles():
    found = titles(drawn(torch.randn(5, 3, 2), torch.randn(4, 1, 3, 3)))
    assert [title for title in ("some.layer, 5×3×2", "filters of conv1, 4×1×3×3") if title not in found] == []


def test_filters_of_three_channels_are_in_colour_with_grey_for_zero():
    kernels = torch.zeros(2, 3, 3, 3)
    kernels[0, 0] = 2.0  # red
    kernels[0, 2] = -1.0  # less blue
    images = shown(drawn(torch.randn(4, 3, 3), kernels))
    assert images[1].shape == (3, 3, 3)
    assert np.allclose(images[1], [1.0, 0.5, 0.25])
    assert np.allclose(images[2], 0.5)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_filters_of_other_channels_are_in_grey_by_their_mean(channels):
    kernels = torch.randn(2, channels, 5, 5)
    images = shown(drawn(torch.randn(4, 3, 3), kernels))
    assert np.allclose(images[1], kernels[0].mean(0), atol=1e-6)


def test_maps_and_filters_of_one_value_are_drawn_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of colours without a range, of layouts without room
        drawn(torch.zeros(3, 4, 4), torch.zeros(2, 3, 3, 3)).draw_without_rendering()


@pytest.mark.parametrize("shape", [(10,), (120, 1, 1)])
def test_single_numbers_have_a_bar_each(shape):
    values = torch.randn(shape)
    figure = drawn(values, torch.randn(2, 1, 3, 3))
    bars = figure.get_axes()[-1].patches
    assert len(shown(figure)) == 1 + 2
    assert [bar.get_height() for bar in bars] == pytest.approx(values.flatten().tolist())
