"""`cnnbench predict`: the predictions of the run's test, for every kind of image file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax

from cnnbench.__main__ import main
from cnnbench.config.compose import compose
from cnnbench.data.sets.mnist5k import MNIST5k
from cnnbench.models.simplecnn import SimpleCNN
from cnnbench.runs.run_dir import RunDir


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """(500, 28, 28) uint8: the run's test split."""
    return MNIST5k().read("test").pixels.squeeze(1).numpy()


@pytest.fixture(scope="module")
def expected(finished) -> np.ndarray:
    """(500, 10): the probabilities that the run saved for its test split."""
    with np.load(finished.predictions) as file:
        return softmax(file["logits"].astype(np.float64), axis=1)


@pytest.fixture
def digit(digits, tmp_path) -> Path:
    """The first test image as a grey PNG."""
    Image.fromarray(digits[0]).save(tmp_path / "x.png")
    return tmp_path / "x.png"


@pytest.fixture
def command(capsys):
    """Runs `predict` with these arguments: exit code, stdout, stderr."""

    def run(*arguments) -> tuple[int, str, str]:
        code = main(["predict", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def predicted(command, finished):
    """The run's predictions for an image: (10,) probabilities in the order of classes."""

    def run(picture: Path, *flags: str) -> np.ndarray:
        code, out, _ = command(finished.path, picture, "--json", "--top", "10", *flags)
        assert code == 0
        return in_order(json.loads(out)["predictions"][0])

    return run


def in_order(prediction: dict) -> np.ndarray:
    return np.array([answer["probability"] for answer in sorted(prediction["top"], key=lambda answer: answer["index"])])


def rewrite(directory: RunDir, change) -> None:
    """Changes the content of a run's best.ckpt."""
    content = torch.load(directory.best, weights_only=True)
    change(content)
    torch.save(content, directory.best)


def assert_refused(result: tuple[int, str, str], *words: str) -> None:
    """Asserts exit code 2 and one line on stderr with these words."""
    code, out, error = result
    assert (code, out) == (2, "")
    assert error.startswith("cnnbench: ")
    assert error.count("\n") == 1
    assert error.endswith("\n")
    assert [word for word in words if word not in error] == []


# ---- the predictions of the run's test ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 499])
def test_an_image_of_the_test_split_gets_the_probabilities_of_the_test(number, digits, expected, predicted, tmp_path):
    Image.fromarray(digits[number]).save(tmp_path / "x.png")
    assert predicted(tmp_path / "x.png") == pytest.approx(expected[number], abs=1e-5)


def test_several_images_are_predicted_in_the_order_of_their_names(digits, expected, command, finished, tmp_path):
    numbers = [7, 3, 400, 3]
    paths = [tmp_path / f"{number}.png" for number in numbers]
    for number, path in zip(numbers, paths, strict=True):
        Image.fromarray(digits[number]).save(path)
    _, out, _ = command(finished.path, *paths, "--json", "--top", 10)
    predictions = json.loads(out)["predictions"]
    assert [prediction["image"] for prediction in predictions] == [str(path) for path in paths]
    for number, prediction in zip(numbers, predictions, strict=True):
        assert in_order(prediction) == pytest.approx(expected[number], abs=1e-5)


def test_invert_undoes_an_inverted_picture(digits, expected, predicted, tmp_path):
    Image.fromarray(255 - digits[0]).save(tmp_path / "x.png")
    assert predicted(tmp_path / "x.png", "--invert") == pytest.approx(expected[0], abs=1e-5)


def test_an_inverted_image_gets_another_prediction(digits, expected, predicted, tmp_path):
    Image.fromarray(255 - digits[0]).save(tmp_path / "x.png")
    assert np.abs(predicted(tmp_path / "x.png") - expected[0]).max() > 0.01


def ink_on_nothing(digit: np.ndarray) -> Image.Image:
    """Black ink, as opaque as the digit is bright, on a transparent background."""
    return Image.fromarray(np.dstack([np.zeros((28, 28, 3), np.uint8), digit]))


KINDS = {  # the same digit in other modes and lossless files
    "grey.bmp": lambda d: (Image.fromarray(d), {}),
    "grey.tiff": lambda d: (Image.fromarray(d), {}),
    "grey.pgm": lambda d: (Image.fromarray(d), {}),
    "grey.gif": lambda d: (Image.fromarray(d), {}),
    "colour.png": lambda d: (Image.fromarray(d).convert("RGB"), {}),
    "colour.webp": lambda d: (Image.fromarray(d).convert("RGB"), {"lossless": True}),
    "palette.png": lambda d: (Image.fromarray(d).convert("RGB").quantize(256, dither=Image.Dither.NONE), {}),
    "opaque.png": lambda d: (Image.fromarray(d).convert("RGBA"), {}),
    "opaque_grey.png": lambda d: (Image.fromarray(d).convert("LA"), {}),
    "sixteen.png": lambda d: (Image.fromarray(d.astype(np.uint16) * 257), {}),
    "sixteen.tiff": lambda d: (Image.fromarray(d.astype(np.uint16) * 257), {}),
    "thirtytwo.tiff": lambda d: (Image.fromarray(d.astype(np.int32) * 257), {}),
    "unit_floats.tiff": lambda d: (Image.fromarray(d.astype(np.float32) / 255), {}),
    "byte_floats.tiff": lambda d: (Image.fromarray(d.astype(np.float32)), {}),
    "name without suffix": lambda d: (Image.fromarray(d), {"format": "PNG"}),
    "wrong.jpg": lambda d: (Image.fromarray(d), {"format": "PNG"}),
}


def test_every_kind_of_file_of_one_image_gets_the_same_prediction(digits, expected, command, finished, tmp_path):
    for name, kind in KINDS.items():
        image, options = kind(digits[0])
        image.save(tmp_path / name, **options)
    code, out, _ = command(finished.path, *(tmp_path / name for name in KINDS), "--json", "--top", 10)
    assert code == 0
    for name, prediction in zip(KINDS, json.loads(out)["predictions"], strict=True):
        assert in_order(prediction) == pytest.approx(expected[0], abs=2e-3), name


def test_ink_on_a_transparent_ground_is_dark_on_light(digits, expected, predicted, tmp_path):
    ink_on_nothing(digits[0]).save(tmp_path / "x.png")
    assert predicted(tmp_path / "x.png", "--invert") == pytest.approx(expected[0], abs=1e-5)


def test_a_rotated_image_with_its_exif_tag_gets_the_prediction_of_the_upright_one(
    digits, expected, predicted, tmp_path
):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(np.ascontiguousarray(np.rot90(digits[0], 1))).save(tmp_path / "x.png", exif=exif)
    assert predicted(tmp_path / "x.png") == pytest.approx(expected[0], abs=1e-5)


def test_a_large_image_is_scaled_down_to_the_nets_size(digits, expected, predicted, tmp_path):
    Image.fromarray(digits[0].repeat(20, 0).repeat(20, 1)).save(tmp_path / "x.png")
    assert predicted(tmp_path / "x.png").argmax() == expected[0].argmax()


def test_an_image_of_one_pixel_gets_a_prediction(predicted, tmp_path):
    Image.new("L", (1, 1)).save(tmp_path / "x.png")
    assert predicted(tmp_path / "x.png").sum() == pytest.approx(1, abs=1e-5)


# ---- colours --------------------------------------------------------------------------------------------------------


@pytest.fixture
def colour_run(tmp_path) -> RunDir:
    """A run of an untrained net of three channels, each with a different normalization."""
    directory = RunDir.create(tmp_path / "runs", "colour")
    config = compose(["model=simplecnn", "data=synthetic", "data.channels=3", "data.num_classes=4"])
    directory.config.write_text(config.dump())
    torch.manual_seed(0)
    net = SimpleCNN(in_channels=3, num_classes=4, image_size=16)
    normalised = {"mean": [0.1, 0.5, 0.9], "std": [0.2, 0.3, 0.4]}
    facts = {"channels": 3, "classes": ["a", "b", "c", "d"], "image_size": 16, **normalised}
    content = {"schema": 1, "state_dict": net.state_dict(), "config": config.as_dict(), "data": facts}
    torch.save(content, directory.best)
    return directory


def test_a_net_of_three_channels_gets_the_colours(colour_run, command, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    _, out, _ = command(colour_run.path, tmp_path / "x.png", "--json", "--top", 4)
    net = SimpleCNN(in_channels=3, num_classes=4, image_size=16)
    net.load_state_dict(torch.load(colour_run.best, weights_only=True)["state_dict"])
    by_hand = torch.tensor((pixels / 255 - [0.1, 0.5, 0.9]) / [0.2, 0.3, 0.4]).float().permute(2, 0, 1)
    with torch.no_grad():
        probabilities = softmax(net.eval()(by_hand[None]).numpy()[0])
    assert in_order(json.loads(out)["predictions"][0]) == pytest.approx(probabilities, abs=1e-6)


def test_a_net_of_three_channels_accepts_a_grey_image(colour_run, command, digit):
    code, out, _ = command(colour_run.path, digit)
    assert code == 0
    assert out.startswith(f"{digit}:  ")


# ---- what is printed ----------------------------------------------------------------------------------------------


def test_json_has_the_keys_of_its_schema_and_no_other(command, finished, digit):
    code, out, error = command(finished.path, digit, "--json")
    answer = json.loads(out)
    assert (code, error) == (0, "")
    assert list(answer) == ["schema", "run", "predictions"]
    assert (answer["schema"], answer["run"]) == (1, str(finished.path))
    assert [list(prediction) for prediction in answer["predictions"]] == [["image", "top"]]
    assert [list(top) for top in answer["predictions"][0]["top"]] == 3 * [["class", "index", "probability"]]
    assert all(top["class"] == str(top["index"]) for top in answer["predictions"][0]["top"])


def test_the_most_probable_class_comes_first(command, finished, digit, expected):
    top = json.loads(command(finished.path, digit, "--json")[1])["predictions"][0]["top"]
    assert [answer["index"] for answer in top] == np.argsort(-expected[0])[:3].tolist()


@pytest.mark.parametrize(("top", "printed"), [(1, 1), (4, 4), (10, 10), (99, 10)])
def test_top_is_the_number_of_printed_classes_at_most_all(command, finished, digit, expected, top, printed):
    _, out, _ = command(finished.path, digit, "--top", top)
    line = f"{digit}:  " + "   ".join(
        f"{index} {expected[0][index]:.3f}" for index in np.argsort(-expected[0])[:printed]
    )
    assert out.splitlines()[0] == line


@pytest.mark.parametrize("top", ["0", "-3", "many", "1.5"])
def test_an_invalid_top_is_refused(command, finished, digit, top):
    assert_refused(command(finished.path, digit, f"--top={top}"), "--top", top)


def test_flags_may_be_before_and_between_the_images(command, finished, digit):
    plain = command(finished.path, digit, digit, "--json", "--top", 2)
    assert plain[0] == 0
    assert command("--top", 2, finished.path, digit, "--json", digit) == plain


def test_a_light_image_gives_a_hint_at_invert(command, finished, digits, tmp_path):
    Image.fromarray(255 - digits[0]).save(tmp_path / "x.png")
    assert "--invert" in command(finished.path, tmp_path / "x.png")[1]


@pytest.mark.parametrize("light", [True, False])
def test_with_invert_there_is_no_hint_at_invert(command, finished, digits, tmp_path, light):
    Image.fromarray(255 - digits[0] if light else digits[0]).save(tmp_path / "x.png")
    assert "--invert" not in command(finished.path, tmp_path / "x.png", "--invert")[1]


def test_a_dark_image_gives_no_hint(command, finished, digit):
    assert "--invert" not in command(finished.path, digit)[1]


@pytest.mark.slow
def test_predicting_in_a_new_process_prints_only_the_predictions(finished, digit, tmp_path):
    command = [sys.executable, "-m", "cnnbench", "predict", str(finished.path), str(digit), "--show", "out.png"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [str(digit), "drawn"]


def test_predicting_changes_nothing_in_the_run_directory(command, copied, digit):
    before = {path: path.read_bytes() for path in copied.path.rglob("*") if path.is_file()}
    command(copied.path, digit)
    assert {path: path.read_bytes() for path in copied.path.rglob("*") if path.is_file()} == before


# ---- drawing ------------------------------------------------------------------------------------------------------


def test_show_writes_a_png_of_image_and_predictions(command, finished, digit, tmp_path):
    code, out, _ = command(finished.path, digit, "--show", tmp_path / "out.png")
    assert code == 0
    assert out.endswith(f"drawn: {tmp_path / 'out.png'}\n")
    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.format == "PNG"
        left, right = np.hsplit(np.asarray(drawn.convert("L")), 2)
    assert (left < 50).mean() > 0.1  # the dark ground of the digit
    assert right.std() > 5  # bars


def test_show_draws_every_picture(command, finished, digit, tmp_path):
    command(finished.path, digit, "--show", tmp_path / "one.png")
    command(finished.path, digit, digit, digit, "--show", tmp_path / "three.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "three.png") as three:
        assert three.width == one.width
        assert three.height > 2 * one.height


def test_show_with_json_prints_only_json(command, finished, digit, tmp_path):
    code, out, _ = command(finished.path, digit, "--json", "--show", tmp_path / "out.png")
    assert code == 0
    assert json.loads(out)["schema"] == 1
    assert (tmp_path / "out.png").is_file()


def test_show_writes_an_svg_if_the_name_ends_in_svg(command, finished, digit, tmp_path):
    assert command(finished.path, digit, "--show", tmp_path / "out.svg")[0] == 0
    assert "<svg" in (tmp_path / "out.svg").read_text(encoding="utf-8")


def test_show_draws_colours(command, colour_run, tmp_path):
    Image.new("RGB", (16, 16), (255, 0, 0)).save(tmp_path / "x.png")
    assert command(colour_run.path, tmp_path / "x.png", "--show", tmp_path / "out.png")[0] == 0
    with Image.open(tmp_path / "out.png") as drawn:
        assert (np.asarray(drawn.convert("RGB")) == (255, 0, 0)).all(axis=2).mean() > 0.05


def test_a_missing_folder_is_refused_before_the_net_is_loaded(command, finished, digit):
    assert_refused(
        command(finished.path, digit, "--show", "absent/x.png"), "--show absent/x.png: there is no folder absent"
    )


@pytest.mark.parametrize(
    ("name", "reason"), [("out.xyz", "expected a name that ends in"), ("folder.png", "cannot be written")]
)
def test_a_drawing_that_cannot_be_written_is_refused_in_one_line(command, finished, digit, tmp_path, name, reason):
    (tmp_path / "folder.png").mkdir()
    assert_refused(command(finished.path, digit, "--show", tmp_path / name), f"--show {tmp_path / name}: {reason}")


ODD_NAMES = ["$\\frac{$", "été $5", "日本", "a_b^{c", "<&>", "", "%s", "{0}", "x" * 60, "$$"]


def test_class_names_of_any_letters_are_printed_and_drawn(command, copied, digit, tmp_path):
    rewrite(copied, lambda content: content["data"].update(classes=ODD_NAMES))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the font lacks some
        warnings.filterwarnings("ignore", "constrained_layout")
        code, out, _ = command(copied.path, digit, "--json", "--top", 10, "--show", tmp_path / "out.png")
    answers = json.loads(out)["predictions"][0]["top"]
    assert code == 0
    assert [answer["class"] for answer in answers] == [ODD_NAMES[answer["index"]] for answer in answers]
    with Image.open(tmp_path / "out.png") as drawn:
        drawn.load()


def test_class_names_of_any_letters_are_printed_as_text(command, copied, digit):
    rewrite(copied, lambda content: content["data"].update(classes=ODD_NAMES))
    code, out, _ = command(copied.path, digit, "--top", 10)
    assert code == 0
    assert [name for name in ODD_NAMES if f"{name} 0." not in out] == []


@pytest.mark.parametrize("name", ["a$\\x$.png", "größe 日.png", "with space.png", "{0}%s.png"])
def test_pictures_with_odd_names_are_drawn(command, finished, digit, tmp_path, name):
    shutil.copy(digit, tmp_path / name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        code, out, _ = command(finished.path, tmp_path / name, "--show", tmp_path / "out.png")
    assert code == 0
    assert out.startswith(f"{tmp_path / name}:  ")


# ---- what is refused ----------------------------------------------------------------------------------------------


def test_a_text_file_is_refused_in_one_line(command, finished, tmp_path):
    (tmp_path / "x.png").write_text("not a picture\n" * 20)
    assert_refused(command(finished.path, tmp_path / "x.png"), f"{tmp_path / 'x.png'}: not a picture that can be read")


def test_an_empty_file_is_refused_in_one_line(command, finished, tmp_path):
    (tmp_path / "x.png").touch()
    assert_refused(command(finished.path, tmp_path / "x.png"), f"{tmp_path / 'x.png'}: not a picture that can be read")


def test_a_truncated_png_is_refused_in_one_line(command, finished, digits, tmp_path):
    Image.fromarray(digits[0]).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(content[: len(content) // 2])
    assert_refused(command(finished.path, tmp_path / "x.png"), f"{tmp_path / 'x.png'}: damaged, or not a picture")


def test_a_picture_that_unpacks_to_more_than_memory_should_hold_is_refused(command, finished, digit, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert_refused(command(finished.path, digit), f"{digit}: damaged, or not a picture")


@pytest.mark.parametrize("name", ["absent.png", ""])
def test_a_picture_that_is_absent_or_a_folder_is_refused_in_one_line(command, finished, tmp_path, name):
    assert_refused(command(finished.path, tmp_path / name), f"{tmp_path / name}: no such picture")


def test_one_missing_image_stops_all_predictions(command, finished, digit, tmp_path):
    assert_refused(command(finished.path, digit, tmp_path / "absent.png"), "absent.png: no such picture")


def test_no_image_is_refused_in_one_line(command, finished):
    assert_refused(command(finished.path), "IMAGE", "--help")


def test_an_unknown_flag_is_refused_in_one_line(command, finished, digit):
    assert_refused(command(finished.path, digit, "--nosuch"), "--nosuch")


@pytest.mark.parametrize("name", ["", "absent", "x.png"])
def test_what_is_no_run_directory_is_refused_in_one_line(command, digit, tmp_path, name):
    assert_refused(command(tmp_path / name, digit), f"{tmp_path / name}: not a run directory, it holds no config.yaml")


def test_the_folder_above_a_run_is_refused_with_the_run_in_it(command, finished, digit):
    assert_refused(command(finished.path.parent, digit), f"did you mean {finished.path}?")


def test_a_run_that_has_not_validated_yet_is_refused_in_one_line(command, copied, digit):
    copied.best.unlink()
    assert_refused(command(copied.path, digit), f"{copied.best}: absent; the run has not validated yet")


def test_a_damaged_checkpoint_is_refused_in_one_line(command, copied, digit):
    copied.best.write_bytes(copied.best.read_bytes()[:-1000])
    assert_refused(command(copied.path, digit), f"{copied.best}: not a checkpoint of cnnbench, or damaged")


def test_a_checkpoint_of_another_program_is_refused_in_one_line(command, copied, digit):
    torch.save({"state_dict": {}}, copied.best)
    assert_refused(command(copied.path, digit), "not a checkpoint that cnnbench wrote", "config")


@pytest.mark.parametrize(
    "content", [b"P5 is a paper", b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0cIHDR" + bytes(40)], ids=["PGM", "PNG"]
)
def test_a_file_that_only_begins_like_an_image_is_refused_in_one_line(command, finished, tmp_path, content):
    (tmp_path / "odd.png").write_bytes(content)
    assert_refused(command(finished.path, tmp_path / "odd.png"), "odd.png")
