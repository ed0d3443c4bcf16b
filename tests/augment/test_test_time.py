"""Predictions averaged over views of an image: against torchvision's and PIL's views, and softmax by hand."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.special import softmax
from torch import nn
from torchvision.transforms.v2 import functional as tv

from cnnbench.__main__ import main
from cnnbench.augment.test_time import TestTimeEnsemble, TestTimeViews, resize
from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.data.sets.mnist5k import MNIST5k
from cnnbench.errors import ConfigError
from cnnbench.runs.load_net import load_net
from cnnbench.runs.run_dir import RunDir
from cnnbench.training.classifier import Classifier
from cnnbench.training.evaluate import evaluate
from cnnbench.training.factories import build_data
from cnnbench.training.run import run
from datafiles import ready

NET = ["threads=1", "epochs=1", "model=simplecnn", "trainer=cpu"]


class Tiny(nn.Module):
    """Five logits of an image, a linear map of its pixels."""

    def __init__(self, side: int, channels: int = 1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(channels * side * side, 5, generator=generator) / side)
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(x.shape))
        return x.flatten(1) @ self.weight


def images(n: int = 6, side: int = 12, channels: int = 1) -> torch.Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(1))


def mean_probabilities(logits: list[torch.Tensor]) -> np.ndarray:
    return np.mean([softmax(view.detach().double().numpy(), axis=1) for view in logits], axis=0)


# ---- --tta --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "views"),
    [
        ("flips", TestTimeViews((), True)),
        ("scales=28", TestTimeViews((28,), False)),
        ("scales=28,32,36", TestTimeViews((28, 32, 36), False)),
        ("scales=28,32,flips", TestTimeViews((28, 32), True)),
        (" scales=28 , 32 , flips ", TestTimeViews((28, 32), True)),
        ("scales=28,28,32,28", TestTimeViews((28, 32), False)),
    ],
)
def test_views_are_parsed(text, views):
    assert TestTimeViews.parse(text) == views


MISTAKES = [
    "", " ", "flip", "flips,", "scales=", "scales=28,,32", "scales=0", "scales=28,0", "scales=-1", "scales=2.5", "scales=28,b",
    "28,flips", "scales=28,scales=32", "scales=²",
]  # fmt: skip


@pytest.mark.parametrize("text", MISTAKES)
def test_a_wrong_form_is_refused_with_an_example(text):
    with pytest.raises(ConfigError) as caught:
        TestTimeViews.parse(text)
    assert str(caught.value).startswith(
        f"--tta {text}: --tta takes scales=S,S,... (pixels a side) and flips, as in --tta "
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "scales=0"])
def test_a_wrong_tta_is_refused_before_the_run_is_read(text, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "absent"), "--tta", text]) == 2
    assert re.fullmatch(rf"cnnbench: --tta {re.escape(text)}: [^\n]*\n", capsys.readouterr().err)


# ---- the views -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"), [("flips", 2), ("scales=12", 1), ("scales=10,12,14", 3), ("scales=10,12,14,flips", 6)]
)
def test_each_scale_gives_a_view_and_its_mirror_image(text, number):
    views = TestTimeViews.parse(text).of(images(), 12)
    assert [tuple(view.shape) for view in views] == [(6, 1, 12, 12)] * number


def test_flips_alone_are_the_image_and_its_mirror_image():
    x = images()
    one, other = TestTimeViews.parse("flips").of(x, 12)
    assert torch.equal(one, x)
    assert torch.equal(other, x[..., list(range(11, -1, -1))])


def test_a_scale_of_the_images_own_size_is_the_image():
    x = images()
    assert torch.equal(TestTimeViews.parse("scales=12").of(x, 12)[0], x)


@pytest.mark.parametrize(
    ("scale", "stored", "channels"), [(5, 12, 1), (8, 20, 3), (11, 12, 3), (13, 20, 1), (20, 12, 3), (31, 20, 1)]
)
def test_a_scaled_view_is_torchvisions_resize_and_centre_crop(scale, stored, channels):
    x = images(3, stored, channels)
    (view,) = TestTimeViews((scale,)).of(x, 12)
    expected = tv.center_crop(tv.resize(x, [scale, scale], antialias=True), [12, 12])
    torch.testing.assert_close(view, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", [7, 12, 17])
def test_a_resized_image_equals_pils_to_within_one_grey_level(side):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
    found = resize(torch.from_numpy(pixels).float().view(1, 1, 12, 12), side)
    expected = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR), dtype=float)
    assert np.abs(found[0, 0].numpy() - expected).max() <= 1


def test_a_smaller_view_is_padded_with_the_mean():
    (view,) = TestTimeViews((4,)).of(images() + 5, 12)
    inside = torch.zeros(12, 12, dtype=torch.bool)
    inside[4:8, 4:8] = True
    assert (view[..., ~inside] == 0).all()
    assert (view[..., inside] > 1).all()


def test_the_scaled_views_are_mirrored():
    views = TestTimeViews.parse("scales=10,14,flips").of(images(), 12)
    for view, mirrored in zip(views[:2], views[2:], strict=True):
        assert torch.equal(mirrored, view.flip(-1))


def test_the_input_images_are_not_modified():
    x = images()
    before = x.clone()
    for view in TestTimeViews.parse("scales=10,12,14,flips").of(x, 12):
        view.zero_() if view.data_ptr() != x.data_ptr() else None
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("text", "native", "side"),
    [("flips", 28, 32), ("scales=32,flips", 28, 32), ("scales=20", 28, 28), ("scales=20,36", 28, 28),
     ("scales=20", 500, 64), ("scales=20,100", 500, 100)],
)  # fmt: skip
def test_views_are_made_from_images_of_the_data_sets_size_unless_that_is_too_large(text, native, side):
    assert TestTimeViews.parse(text).source_side(native, 32) == side


# ---- the mean prediction -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["flips", "scales=10", "scales=10,12,15", "scales=10,12,15,flips"])
def test_the_output_is_the_log_of_the_mean_softmax_over_the_views(text):
    net, x = Tiny(12), 5 * images()
    views = TestTimeViews.parse(text)
    found = TestTimeEnsemble(net, views, 12)(x).detach().double().exp().numpy()
    expected = mean_probabilities([net(view) for view in views.of(x, 12)])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


def test_flips_alone_average_the_image_and_its_mirror_image():
    net, x = Tiny(12), images()
    found = TestTimeEnsemble(net, TestTimeViews.parse("flips"), 12)(x).exp()
    torch.testing.assert_close(found, (net(x).softmax(1) + net(x.flip(-1)).softmax(1)) / 2)


def test_one_view_that_is_the_image_gives_the_nets_prediction():
    net, x = Tiny(12), images()
    torch.testing.assert_close(TestTimeEnsemble(net, TestTimeViews.parse("scales=12"), 12)(x), net(x).log_softmax(1))


def test_a_scale_that_is_named_twice_counts_once():
    net, x = Tiny(12), images()
    answers = [
        TestTimeEnsemble(net, TestTimeViews.parse(text), 12)(x) for text in ("scales=10,14,10,10", "scales=10,14")
    ]
    assert torch.equal(*answers)


def test_certain_and_opposite_predictions_stay_finite():
    class Sure(nn.Module):
        def forward(self, x):
            return 1000 * torch.stack([x[:, 0, 0, 0], -x[:, 0, 0, 0]], 1)

    x = torch.zeros(1, 1, 4, 4)
    x[..., 0], x[..., -1] = 1, -1
    found = TestTimeEnsemble(Sure(), TestTimeViews.parse("flips"), 4)(x)
    torch.testing.assert_close(found.exp(), torch.full((1, 2), 0.5))


def test_half_precision_is_averaged_in_single():
    net = Tiny(12).half()
    assert TestTimeEnsemble(net, TestTimeViews.parse("flips"), 12)(images().half()).dtype == torch.float32


# ---- evaluate --tta --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> RunDir:
    """A run on made images of 28 × 28 in colour, as large as the net takes them."""
    data = ["data=synthetic", "data.channels=3", "data.train_size=200", "data.val_size=40", "data.test_size=60"]
    overrides = [*NET, *data, "augment=notes", f"runs_dir={tmp_path_factory.mktemp('views') / 'runs'}"]
    return run(compose(overrides)).directory


@pytest.fixture
def outputs(monkeypatch):
    """Scores a run, and gives the logits and labels that were scored as well."""
    kept = []
    whole = Classifier.on_test_epoch_end

    def on_test_epoch_end(self):
        whole(self)
        kept.append(self.outputs)

    monkeypatch.setattr(Classifier, "on_test_epoch_end", on_test_epoch_end)

    def score(directory: RunDir, split: str = "test", tta: str | None = None, *overrides: str):
        from cnnbench.training.evaluate import with_data_overrides

        scores = evaluate(directory, with_data_overrides(Config.load(directory.config), list(overrides)), split, tta)
        logits, labels = kept[-1]
        return scores, softmax(logits.double().numpy(), axis=1), labels.numpy()

    return score


def normalized(directory: RunDir, split: str = "test") -> tuple[torch.Tensor, np.ndarray]:
    """The images of a run's split without any augmentation, as its net takes them, and their labels."""
    config = Config.load(directory.config)
    data = ready(build_data(config.model_copy(update={"augment": {}})))
    batches = list(data.loader(split))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("text", ["flips", "scales=28", "scales=24,28,32", "scales=20,36,flips"])
def test_scores_are_those_of_the_mean_prediction(photographs, outputs, text):
    scores, probabilities, labels = outputs(photographs, "test", text)
    x, targets = normalized(photographs)
    net, _ = load_net(photographs.path)
    words = text.removesuffix("flips").removeprefix("scales=").strip(",")
    views = []
    for side in map(int, words.split(",") if words else ["28"]):
        view = tv.center_crop(tv.resize(x, [side, side], antialias=True), [28, 28])
        views += [view, view.flip(-1)] if "flips" in text else [view]
    with torch.no_grad():
        expected = mean_probabilities([net(view) for view in views])
    np.testing.assert_array_equal(labels, targets)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert scores.loss == pytest.approx(-np.log(expected[range(60), targets]).mean(), abs=1e-5)
    assert scores.acc == pytest.approx((expected.argmax(1) == targets).mean())
    assert scores.ece == pytest.approx(calibration_error(expected, targets), abs=1e-5)


def calibration_error(probabilities: np.ndarray, targets: np.ndarray, bins: int = 15) -> float:
    """Guo et al. 2017, equation 3."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == targets
    at = np.minimum((confidence * bins).astype(int), bins - 1)
    return sum(abs(right[at == b].mean() - confidence[at == b].mean()) * (at == b).mean() for b in set(at))


@pytest.mark.slow
def test_without_tta_scores_are_the_results(photographs, outputs):
    scores, _, _ = outputs(photographs)
    metrics = json.loads(photographs.result.read_text())["metrics"]
    assert (scores.acc, scores.loss) == (metrics["test/acc"], pytest.approx(metrics["test/loss"], abs=1e-7))
    assert scores.tta is None


@pytest.mark.slow
@pytest.mark.parametrize("text", ["flips", "scales=24,28,flips"])
def test_the_json_names_the_views(photographs, capsys, text):
    assert main(["evaluate", str(photographs.path), "--tta", text, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["tta"], scores["n"], scores["schema"]) == (text, 60, 1)
    assert list(scores) == "schema run data split tta ema n acc interval loss ece classes per_class confusion".split()


def test_the_json_without_tta_has_null(photographs, capsys):
    assert main(["evaluate", str(photographs.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tta"] is None


def test_the_printed_text_names_the_views(photographs, capsys):
    assert main(["evaluate", str(photographs.path), "--tta", "scales=24,28,flips"]) == 0
    assert "60 images, averaged over scales=24,28,flips" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "val"])
def test_other_splits_are_averaged_over_views_too(photographs, outputs, split):
    scores, probabilities, labels = outputs(photographs, split, "flips")
    x, targets = normalized(photographs, split)
    net, _ = load_net(photographs.path)
    with torch.no_grad():
        expected = mean_probabilities([net(x), net(x.flip(-1))])
    assert scores.split == split
    np.testing.assert_array_equal(labels, targets)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("tta", [None, "scales=28"])
def test_train_images_are_evaluated_without_augmentation(photographs, outputs, tta):
    scores, probabilities, labels = outputs(photographs, "train", tta)
    config = Config.load(photographs.config)
    read = build_data(config).read("train")
    data = ready(build_data(config))
    rows = data.indices["train"]
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (config.data.mean, config.data.std))
    net, _ = load_net(photographs.path)
    with torch.no_grad():
        expected = net((read.pixels[rows] / 255 - mean) / std).softmax(1).numpy()
    assert data.images["train"].pixels.shape[-1] == 35  # as augment=notes has it, 40 / 32 of 28
    assert scores.n == len(rows) == 200
    np.testing.assert_array_equal(labels, read.labels[rows].numpy())
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


@pytest.mark.slow
def test_the_net_gets_only_images_of_its_size(photographs, monkeypatch):
    from cnnbench.models.simplecnn import SimpleCNN

    shapes = set()
    whole = SimpleCNN.forward

    def forward(self, x):
        shapes.add(tuple(x.shape[1:]))
        return whole(self, x)

    monkeypatch.setattr(SimpleCNN, "forward", forward)
    evaluate(photographs, Config.load(photographs.config), "train", "scales=14,28,56,flips")
    assert shapes == {(3, 28, 28)}


# images of 28 × 28 that the net takes at 32 × 32


@pytest.mark.slow
@pytest.mark.parametrize("text", ["scales=32", "flips"])
def test_the_unscaled_view_is_the_image_that_is_evaluated_without_tta(finished, outputs, text):
    _, plain, _ = outputs(finished, "test")
    _, averaged, _ = outputs(finished, "test", text)
    if text == "flips":
        x, _ = normalized(finished)
        net, _ = load_net(finished.path)
        with torch.no_grad():
            plain = (plain + net(x.flip(-1)).double().softmax(1).numpy()) / 2
    np.testing.assert_allclose(averaged, plain, atol=1e-5)


@pytest.mark.slow
def test_a_larger_scale_is_made_from_the_data_sets_pixels(finished, outputs):
    _, found, _ = outputs(finished, "test", "scales=40")
    pixels = MNIST5k().read("test").pixels.float()
    x = (F.interpolate(pixels, (40, 40), mode="bilinear", antialias=True) / 255 - 0.1307) / 0.3081
    net, _ = load_net(finished.path)
    with torch.no_grad():
        expected = net(tv.center_crop(x, [32, 32])).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> RunDir:
    """A run whose net takes the digits at 16 × 16, which are 28 × 28."""
    overrides = [
        *NET,
        "data.image_size=16",
        "data.train_size=640",
        f"runs_dir={tmp_path_factory.mktemp('small') / 'runs'}",
    ]
    return run(compose(overrides)).directory


@pytest.mark.slow
def test_the_view_at_one_scale_does_not_depend_on_the_other_scales(small, outputs):
    (_, one, _), (_, other, _), (_, both, _) = (
        outputs(small, "test", text) for text in ("scales=16", "scales=24", "scales=16,24")
    )
    np.testing.assert_allclose(both, (one + other) / 2, atol=1e-4)


@pytest.mark.slow
def test_scales_beyond_the_nets_size_show_more_than_an_enlarged_image(small, outputs):
    _, found, _ = outputs(small, "test", "scales=28")
    pixels = MNIST5k().read("test").pixels[..., 6:22, 6:22].float()
    net, _ = load_net(small.path)
    with torch.no_grad():
        expected = net((pixels / 255 - 0.1307) / 0.3081).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_too_large_scale_is_refused_in_one_line(photographs, capsys):
    assert main(["evaluate", str(photographs.path), "--tta", "scales=3000000"]) == 2
    assert re.fullmatch(r"cnnbench: --tta scales=3000000: [^\n]*\n", capsys.readouterr().err)


@pytest.mark.slow
def test_tta_of_another_data_set_uses_the_runs_size(finished, outputs, real_data):
    scores, _, _ = outputs(
        finished, "test", "scales=28,32,flips", "data=mnist", f"data.root={real_data}", "data.test_size=50"
    )
    assert (scores.data, scores.n, scores.tta) == ("mnist", 50, "scales=28,32,flips")
