"""The choices of conf/augment, alone and combined, and the errors of wrong ones."""

from __future__ import annotations

import inspect
import re
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as tv

from augmenting import BILINEAR, CHOICES, changed, drawn, every_choice, pictures, same
from cnnbench.augment.crops import Pad, RandomCrop, RandomResizedCrop, Resize, ScaleJitter
from cnnbench.augment.step import Augment, Step
from cnnbench.augment.transforms import (
    RandomBrightness,
    RandomContrast,
    RandomErasing,
    RandomHorizontalFlip,
    RandomRotation,
    RandomVerticalFlip,
)
from cnnbench.config.compose import compose, groups
from cnnbench.config.instantiate import locate
from cnnbench.config.schema import Config
from cnnbench.data.datamodule import ImageData
from cnnbench.errors import ConfigError
from cnnbench.training.checks import check_augment
from cnnbench.training.factories import build_augment, build_data
from cnnbench.training.validate import prepare

COLOUR = ("data=synthetic", "data.channels=3", "data.image_size=32", "data.train_size=96", "data.val_size=32")


DIGITS = ("data=mnist5k", "data.train_size=96", "data.val_size=[96,128]")


SETS = {
    "digits of 28": (*DIGITS, "data.image_size=28"),
    "digits of 32": (*DIGITS, "data.image_size=32"),
    "colour of 32": COLOUR,
}


DEVIATING = {  # knobs that a file sets to other values than the class's own
    "basic": {"crop.padding": 4},
    "crop": {"crop.padding": 4},
    "notes": {"scale.side": 40, "scale.of": 32},
    "rotate_list": {"rotate.degrees": None, "rotate.angles": [30, 90, 180]},
}


@cache
def composed(*overrides: str) -> Config:
    return compose([*overrides, "threads=1", "data.test_size=32"])


def ready(choice: str, keys: tuple[str, ...]) -> ImageData:
    """A data set with its train and validation images, for one choice of `conf/augment`."""
    config = composed(*keys)
    data = build_data(config.model_copy(update={"augment": composed(f"augment={choice}").augment}))
    data.prepare_data()
    data.setup("fit")
    return data


def pixels_of(batch: Tensor, data: ImageData) -> Tensor:
    """Normalized images back on the scale 0..255."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (data.mean, data.std))
    return (batch.double() * std + mean) * 255


@every_choice
def test_every_choice_gives_images_that_the_net_accepts(choice):
    for keys in SETS.values():
        data = ready(choice, keys)
        check_augment(data)
        batches = [(pixels_of(batch, data), batch, labels) for batch, labels in data.train_dataloader()]
        for pixels, batch, labels in batches:
            assert batch.shape == (len(labels), *data.shape)
            assert batch.dtype == torch.float32
            assert pixels.isfinite().all()
            assert pixels.min() > -0.01
            assert pixels.max() < 255.01
        deviations = torch.cat([pixels for pixels, _, _ in batches]).flatten(1).std(dim=1)
        assert (deviations > 1).double().mean() > 0.95  # something of the images is left
        for split in ("train", "val"):
            batch, _ = next(iter(data.loader(split)))
            assert tuple(batch.shape[1:]) == data.shape


@every_choice
def test_no_choice_changes_validation_and_test_images(choice):
    augmented, plain = ready(choice, COLOUR), ready("none", COLOUR)
    for data in (augmented, plain):
        data.setup("test")
    for split in ("val_dataloader", "test_dataloader"):
        expected = list(getattr(plain, split)())
        assert same(list(getattr(augmented, split)()), expected)
        assert same(list(getattr(augmented, split)()), expected)


def test_every_choice_lists_every_knob_of_its_steps():
    for choice in CHOICES:
        for name, node in composed(f"augment={choice}").augment.items():
            knobs = set(inspect.signature(locate(node, name)).parameters) - {"image_size", "mean"}
            assert set(node.arguments) == knobs, (choice, name)


@every_choice
def test_every_choice_has_its_classes_defaults_except_the_known_ones(choice):
    deviating = {}
    for name, node in composed(f"augment={choice}").augment.items():
        defaults = inspect.signature(locate(node, name)).parameters
        for knob, value in node.arguments.items():
            default = defaults[knob].default
            if value != (list(default) if isinstance(default, tuple) else default):
                deviating[f"{name}.{knob}"] = value
    assert deviating == DEVIATING.get(choice, {})


def test_every_choice_has_a_description_in_its_first_line():
    for choice in CHOICES:
        first = groups()["augment"][choice].read_text(encoding="utf-8").splitlines()[0]
        assert re.match(r"# \S.{10,}", first), choice


@every_choice
def test_every_choice_is_read_back_from_a_runs_config(choice, tmp_path):
    config = composed(f"augment={choice}")
    (tmp_path / "config.yaml").write_text(config.dump())
    loaded = Config.load(tmp_path / "config.yaml").augment
    assert (loaded, list(loaded)) == (config.augment, list(config.augment))


def test_none_changes_nothing():
    for overrides in (("augment=none",), ("augment=[]",), ()):
        config = composed(*overrides)
        assert (config.augment, config.choices["augment"]) == ({}, "none")
    assert build_augment(composed("augment=none"), 32, [0.5]) is None


CHOSEN = [("crop", "flip", "erase"), ("erase", "crop", "flip"), ("light", "basic"), ("rotate",)]


@pytest.mark.parametrize("chosen", CHOSEN)
def test_several_choices_are_steps_in_the_order_of_the_list(chosen):
    config = composed(f"augment=[{','.join(chosen)}]")
    assert list(config.augment) == [name for choice in chosen for name in composed(f"augment={choice}").augment]
    assert list(build_augment(config, 32, [0.5]).steps) == list(config.augment)
    assert config.choices["augment"] == "+".join(chosen)


def test_blanks_in_a_list_do_not_matter():
    assert composed("augment=[crop, flip]") == composed("augment=[crop,flip]")


def test_a_knob_of_a_chosen_step_can_be_set():
    config = composed("augment=[crop,flip]", "augment.crop.padding=2", "augment.flip.p=0.25")
    steps = build_augment(config, 32, [0.5]).steps
    assert (steps["crop"].padding, steps["flip"].p) == (2, 0.25)


def test_steps_in_another_order_are_another_run():
    one_way, other = composed("augment=[crop,erase]"), composed("augment=[erase,crop]")
    assert one_way.identity() != other.identity()


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        (("augment=flip", "augment=[crop,flip]"), "crop+flip"),
        (("augment=[crop,flip]", "augment=flip"), "flip"),
        (("augment=[crop,flip]", "augment=[erase,crop]"), "erase+crop"),
    ],
)
def test_of_two_augment_overrides_the_last_counts(overrides, label):
    config = composed(*overrides)
    assert list(config.augment) == label.split("+")
    assert config.choices["augment"] == label


@pytest.mark.parametrize(("chosen", "label"), [("crop", "crop"), ("[crop, flip]", "crop+flip"), ("[erase]", "erase")])
def test_a_recipe_or_experiment_may_choose_the_augmentation(chosen, label, tmp_path):
    for group in ("recipe", "experiment"):
        (tmp_path / group).mkdir()
        text = f"# @package _global_\ndefaults:\n  - override /augment: {chosen}\n"
        (tmp_path / group / "mine.yaml").write_text(text)
        config = compose([f"{group}=mine"], config_dir=tmp_path)
        assert list(config.augment) == label.split("+")
        assert config.choices["augment"] == label


def test_a_choice_in_a_users_conf_folder_works_like_a_shipped_one(tmp_path):
    (tmp_path / "augment").mkdir()
    (tmp_path / "augment" / "mine.yaml").write_text(f"mine:\n  _target_: {__name__}.Darker\n  by: 2\n")
    config = compose(["augment=[flip,mine]", "augment.mine.by=4", *COLOUR, "threads=1"], config_dir=tmp_path)
    assert config.choices["augment"] == "flip+mine"
    augmented = prepare(config).data.augment()
    bright = torch.full((2, 3, 32, 32), 200, dtype=torch.uint8)
    assert (augmented(bright, 0, 0, 0, slice(0, 2), 2) == 50).all()


@pytest.mark.parametrize(("keys", "stored"), [("colour of 32", 40), ("digits of 32", 40), ("digits of 28", 35)])
def test_notes_stores_train_images_scaled_once_and_validation_images_at_the_nets_size(keys, stored):
    data = ready("notes", SETS[keys])
    assert data.images["train"].source.shape[-1] == stored
    assert data.images["val"].source.shape[-1] == data.image_size
    assert data.images["train"].source.dtype == torch.uint8


@pytest.mark.slow
def test_notes_scales_to_forty_flips_and_crops_as_torchvision_does():
    data, plain = ready("notes", COLOUR), ready("none", COLOUR)
    (batch, _), order = next(iter(data.train_dataloader())), data.train_dataloader().order(0)
    originals = plain.images["train"].pixels[torch.from_numpy(order[: len(batch)])]
    scaled = tv.resize(originals, [40, 40], BILINEAR, antialias=True)
    found = []
    for image, ours in zip(scaled, pixels_of(batch, data), strict=True):
        windows = torch.stack(
            [
                tv.crop(tv.hflip(image) if mirrored else image, top, left, 32, 32)
                for mirrored in (False, True)
                for top in range(9)
                for left in range(9)
            ]
        )
        distances = (windows - ours).abs().amax(dim=(1, 2, 3))
        assert distances.min() < 1.01
        found.append(int(distances.argmin()))
    assert len({place % 81 for place in found}) > 25
    assert 10 < sum(place >= 81 for place in found) < len(found) - 10


@pytest.mark.parametrize(("image_size", "low", "high"), [(224, 256, 512), (32, 37, 73), (28, 32, 64), (448, 512, 1024)])
def test_vgg_multiscale_draws_its_scales_in_proportion_to_the_image_size(image_size, low, high):
    step = build_augment(composed("augment=vgg_multiscale"), image_size, [0.5]).steps["scale_jitter"]
    scaled, top, left = drawn(step, 30_000, image_size)
    assert (scaled.min(), scaled.max()) == (low, high)
    assert min(top.min(), left.min()) == 0
    assert np.maximum(top, left).max() > 0.9 * (high - image_size)
    assert (scaled - np.maximum(top, left)).min() >= image_size


def test_vgg_multiscale_stores_train_images_at_their_published_size():
    data = ready("vgg_multiscale", SETS["digits of 32"])
    assert data.images["train"].source.shape[-1] == 28
    assert data.images["val"].source.shape[-1] == 32


@pytest.mark.parametrize(
    ("step", "native", "stored"),
    [
        (ScaleJitter(image_size=224), 500, 500),
        (ScaleJitter(image_size=224), 600, 512),
        (RandomResizedCrop(image_size=32), 500, 64),
        (RandomResizedCrop(image_size=32), 40, 40),
        (Resize(256, image_size=224), 500, 256),
        (RandomCrop(4, image_size=32), 500, None),
        (RandomHorizontalFlip(), 500, None),
    ],
)
def test_the_first_step_determines_the_size_of_stored_images(step, native, stored):
    augment = Augment({"first": step, "flip": RandomHorizontalFlip()})
    assert augment.stored_side(native, step.side if hasattr(step, "side") else 32) == stored
    assert Augment({"flip": RandomHorizontalFlip(), "second": step}).stored_side(native, 32) is None


WRONG = [  # tests/test_checks.py has more wrong values; here are those of each step's bounds
    *[(RandomCrop, {"padding": value, "image_size": 32}, "padding") for value in [-1, 1.5]],
    (Pad, {"pixels": -1}, "pixels"),
    *[(Resize, {"side": value, "image_size": 32}, "side") for value in [0, 1.5]],
    *[(Resize, {"side": 40, "of": value, "image_size": 32}, "of") for value in [0, 1.5]],
    (ScaleJitter, {"of": 0, "image_size": 32}, "of"),
    *[(ScaleJitter, {"short_side": value, "image_size": 32}, "short_side") for value in [[0, 512], [512, 256], 256]],
    *[
        (ScaleJitter, {"short_side": value, "of": None, "image_size": 32}, "short_side")
        for value in [[31, 40], [36.5, 40], [36, 40.5]]
    ],
    *[(RandomResizedCrop, {"scale": value, "image_size": 32}, "scale") for value in [[0, 1], [0.5, 1.5], [0.9, 0.1]]],
    *[(RandomResizedCrop, {"ratio": value, "image_size": 32}, "ratio") for value in [[0, 1], [-1, 1]]],
    *[(step, {"p": value}, "p") for step in (RandomHorizontalFlip, RandomVerticalFlip) for value in [-0.1, 1.1]],
    *[(RandomErasing, {"p": value, "mean": [0.5]}, "p") for value in [-0.1, 1.1]],
    *[(RandomErasing, {"scale": value, "mean": [0.5]}, "scale") for value in [[0, 1], [0.5, 1.5]]],
    *[(RandomErasing, {"ratio": value, "mean": [0.5]}, "ratio") for value in [[0, 1], [-1, 1]]],
    *[
        (RandomRotation, {"degrees": value}, "degrees")
        for value in ["15", [20, 10], [1, "b"], float("nan"), True, None]
    ],
    *[(RandomRotation, {"degrees": None, "angles": value}, "angles") for value in [[], 30, "30", ["a"], [True], None]],
    (RandomRotation, {"degrees": 15, "angles": [30]}, "angles"),
    *[(RandomRotation, {"interpolation": value}, "interpolation") for value in ["bicubic", None, ["nearest"]]],
    *[(step, {"amount": value}, "amount") for step in (RandomBrightness, RandomContrast) for value in [-0.1, "much"]],
]


def case_name(value) -> str:
    return f"{value[0].__name__}-{'-'.join(f'{k}={v}' for k, v in value[1].items() if k not in ('image_size', 'mean'))}"


@pytest.mark.parametrize(("step", "keys", "knob"), WRONG, ids=map(case_name, WRONG))
def test_a_step_refuses_a_wrong_value_in_one_line_that_names_the_knob(step, keys, knob):
    with pytest.raises(ValueError, match=rf"\b{knob}[=:,]") as raised:
        step(**keys)
    assert "\n" not in str(raised.value)


def test_a_crop_of_a_too_small_image_is_refused_with_advice():
    with pytest.raises(
        ValueError, match=r"images of 20×20 have no window of 32×32; put a step before it that enlarges them"
    ):
        changed({"crop": RandomCrop(4, image_size=32)}, pictures(2, side=20))


class Darker(Step):
    def __init__(self, by: int) -> None:
        self.by = by

    def apply(self, images, draws):
        return images // self.by


class Broken(Step):
    def __init__(self, how: str) -> None:
        self.how = how

    def apply(self, images, draws):
        raise {"index": IndexError, "type": TypeError}[self.how]("on\nits own")


class Doubling(Step):
    """Gives two images for one."""

    def apply(self, images, draws):
        return torch.cat([images, images])


class Growing(Step):
    def apply(self, images, draws):
        return torch.cat([images, images], dim=1)


MISTAKES = {
    ("augment=rotat",): r"augment=rotat: .*did you mean rotate\?",
    ("augment=[rotat]",): r"augment.*rotat.*did you mean rotate\?",
    ("augment=[crop,flop]",): r"augment.*flop.*did you mean flip\?",
    ("augment=[flop,crop]",): r"augment.*flop.*did you mean flip\?",
    ("augment=[crop,]",): r"augment",
    ("augment=crop,flip",): r"augment=\[crop,flip\]",
    ("augment=rotate", "augment.rotate.degres=3"): r"augment\.rotate\.degres: .*degrees",
    ("augment=crop", "augment.crops.padding=3"): r"augment\.crops\.padding: .*no step crops; did you mean crop\?",
    ("augment=flip", "augment.crop.padding=3"): r"augment\.crop",
    ("augment=crop", "augment.crop=3"): r"^augment\.crop=3: expected",
    ("+augment.mine.by=3",): r"^augment\.mine\._target_: a value is missing",
}


@pytest.mark.slow
@pytest.mark.parametrize("overrides", MISTAKES, ids=" ".join)
def test_an_unknown_choice_is_refused_in_one_line_with_what_to_type(overrides):
    with pytest.raises(ConfigError, match=MISTAKES[overrides]) as raised:
        compose(overrides)
    assert "\n" not in str(raised.value)


REFUSED = {
    ("augment=notes", "~augment.crop"): r"^augment: its steps give images of 3×40×40 .*the net takes 3×32×32",
    ("augment=notes", "augment.scale.side=20"): r"^augment.crop: images of 20×20 have no window of 32×32",
    ("augment=notes", "augment.scale.of=0"): r"^augment\.scale\b.*\bof=0",
    ("augment=notes", "augment.scale.side=big"): r"^augment\.scale\b.*side=big",
    ("augment=crop", "augment.crop._target_=cnnbench.augment.crops.Pad", "~augment.crop.padding"): r"3×40×40.*3×32×32",
    ("augment=vgg_multiscale", "augment.scale_jitter.short_side=[200,512]"): r"^augment\.scale_jitter\b.*short_side",
    ("augment=crop", "augment.crop.padding=-1"): r"^augment\.crop\b.*padding=-1",
    ("augment=crop", "+augment.crop.pading=1"): r"^augment\.crop\.pading: .*did you mean padding\?",
    ("augment=rotate", "augment.rotate.angles=[30]"): r"^augment\.rotate\b.*\bdegrees\b.*\bangles\b",
    (
        "+augment.mine._target_=torch.nn.Flatten",
    ): r"^augment\.mine\._target_=torch\.nn\.Flatten: makes a Flatten, expected a cnnbench\.Step",
    ("+augment.mine._target_=torch.zeros_like",): r"^augment\.mine",
    ("+augment.mine._target_=cnnbench.augment.crops.RandomCorp",): r"^augment\.mine\._target_=.*RandomCorp",
    ("+augment.mine._target_=math.pi",): r"^augment\.mine\._target_=math\.pi",
    ("+augment.mine._target_=cnnbench.augment.step.Step",): r"^augment\S*: .*\w",
    (f"+augment.mine._target_={__name__}.Doubling",): r"^augment: its steps turn 2 images into 4",
    (f"+augment.mine._target_={__name__}.Growing",): r"^augment: its steps give images of 6×32×32 .*takes 3×32×32",
    (f"+augment.mine._target_={__name__}.Darker",): r"^augment\.mine\.by: Darker needs it",
    **{
        (f"+augment.mine._target_={__name__}.Broken", f"+augment.mine.how={how}"): r"^augment\S*: .*on its own"
        for how in ("index", "type")
    },
}


@pytest.mark.parametrize("overrides", REFUSED, ids=" ".join)
def test_an_augmentation_that_would_stop_a_run_is_refused_before_it_starts(overrides):
    with pytest.raises(ConfigError, match=REFUSED[overrides]) as raised:
        prepare(compose([*COLOUR, "threads=1", *overrides]))
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2
