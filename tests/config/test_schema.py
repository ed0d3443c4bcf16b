"""The schema: which values it takes, what its errors state, and which keys enter a run's identity."""

import hashlib
import itertools
import json

import pytest

from cnnbench.config.compose import compose
from cnnbench.config.schema import Config, Keys
from cnnbench.errors import ConfigError
from cnnbench.training.validate import prepare

CHANGES = [
    "seed=1", "batch_size=32", "optimizer.lr=0.1", "optimizer=sgd", "model=simplecnn", "init=paddle", "precision=bf16", "data=mnist",
    "data.image_size=32", "data.mean=0.5", "data.train_size=10", "data.split_seed=1", "trainer.max_steps=5",
]  # fmt: skip
KEEPS = [
    "name=other", "runs_dir=elsewhere", "resume=auto", "log=full", "threads=7", "data.root=/somewhere", "data.pipeline=memory",
    "trainer.devices=2", "trainer.num_nodes=2", "trainer.checkpoint_every_s=60", "trainer.cuda_graph=false",
]  # fmt: skip


DEFAULT = compose([])


@pytest.mark.parametrize("change", CHANGES)
def test_what_decides_a_number_changes_the_identity(change):
    assert compose([change]).identity() != DEFAULT.identity()


def test_names_places_and_devices_leave_the_identity_alone():
    before, after = compose(["data=mnist"]), compose(["data=mnist", *KEEPS])
    assert after != before
    assert after.identity() == before.identity()


def numbers(keys, prefix=""):
    """The schema's keys that take a number, and neither true nor false."""
    for name, field in keys.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Keys):
            yield from numbers(kind, f"{prefix}{name}.")
        elif ("int" in str(kind) or "float" in str(kind)) and "bool" not in str(kind):
            yield f"{prefix}{name}"


NUMBERS = sorted(numbers(Config))


def test_the_keys_that_take_numbers_are_found():
    some = {"seed", "clip_grad", "threads", "optimizer.lr", "data.mean", "data.val_size"}
    assert some < set(NUMBERS)
    assert len(NUMBERS) > 25


def test_true_is_refused_by_every_key_that_takes_a_number():
    for dotted, given in itertools.product(NUMBERS, (True, False)):
        values = DEFAULT.as_dict()
        group, _, name = dotted.rpartition(".")
        (values[group] if group else values)[name] = given
        with pytest.raises(ConfigError, match=rf"^{dotted}={str(given).lower()}: expected .*; for instance {dotted}="):
            Config.from_values(values)


def test_true_in_a_list_of_numbers_is_refused():
    with pytest.raises(ConfigError, match=r"^data\.mean=\[true,0\.5\]: expected"):
        compose(["data.mean=[true,0.5]"])


@pytest.mark.parametrize(
    ("unused", "used"),
    [
        ("init_std=0.02", "init=normal"),
        ("data.split_seed=1", "data.fraction=0.5"),
        ("data.split_seed=1", "data.label_noise=0.1"),
        ("optimizer.decay=weights", "optimizer.weight_decay=0.1"),
    ],
)
def test_a_key_without_an_effect_gets_a_warning_that_names_what_uses_it(unused, used, tiny):
    (warning,) = prepare(compose([*tiny, unused])).warnings
    assert warning.startswith(f"{unused}: has no effect here; it is used with ")
    assert prepare(compose([*tiny, unused, used])).warnings == ()


def test_how_a_value_was_chosen_is_no_part_of_the_identity():
    by_recipe = compose(["recipe=nndl_lenet"])
    by_hand = compose(
        ["optimizer=sgd", "optimizer.lr=0.1", "scheduler=constant", "epochs=5", "init=paddle_create", "data.mean=0.5"]
        + ["data.std=0.5", "trainer.val_every_steps=15"]
    )
    assert by_recipe.identity() == by_hand.identity()
    assert by_recipe.choices != by_hand.choices


def test_the_identity_is_the_hash_of_the_config_without_those_keys(finished):
    """The hash is recomputed here from config.yaml alone."""
    import yaml

    values = yaml.safe_load(finished.config.read_text())
    for key in ("runs_dir", "name", "resume", "log", "choices", "threads", "channels_last"):
        del values[key]
    for key in ("devices", "num_nodes", "checkpoint_every_s", "cuda_graph"):
        del values["trainer"][key]
    for key in ("root", "typed_root", "pipeline"):
        del values["data"][key]
    for group in ("model", "data", "scheduler"):
        values[group]["_target_"] = values[group]["_target_"].split(".")[-1]
    values["augment"] = list(values["augment"].items())
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert json.loads(finished.result.read_text())["config_hash"] == digest
    assert finished.path.name == f"seed0_{digest[:8]}"


def test_a_config_yaml_that_is_not_yaml_gets_one_line(tmp_path):
    path = tmp_path / "config.yaml"
    for content in (b"model: [1, 2\nseed: 0\n", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"config\.yaml: not a readable config\.yaml \(.*\)$") as raised:
            Config.load(path)
        assert "\n" not in str(raised.value)


def test_the_divisors_of_a_batch_are_devices_and_accumulation():
    config = compose(["batch_size=64", "trainer.devices=2", "trainer.num_nodes=2", "accumulate=8"])
    assert (config.batch_parts, config.batch_divisors) == (32, "4 devices × accumulate=8")


def test_too_few_images_for_the_parts_of_a_batch_are_refused_with_all_divisors(tiny):
    keys = ["batch_size=64", "trainer=cpu", "trainer.devices=4", "accumulate=16", "data.train_size=60"]
    with pytest.raises(
        ConfigError, match=r"^4 devices × accumulate=16: 60 train images cannot be cut into 64 parts; type"
    ):
        prepare(compose([*tiny, *keys]))


@pytest.mark.parametrize("character", ["\x1b", "\x9b", "\x07", "\n", "\r", "\t", "\x7f", "\u2028", "\u202e", "\u2066"])
@pytest.mark.parametrize("key", ["data.root", "runs_dir", "model.note", "choices.model", "resume", "model._target_"])
def test_a_text_with_a_control_character_is_refused_in_one_line(key, character):
    values = DEFAULT.as_dict()
    inside = values
    *groups, last = key.split(".")
    for group in groups:
        inside = inside[group]
    inside[last] = f"a{character}b"
    escape = character.encode("unicode_escape").decode()
    with pytest.raises(ConfigError) as raised:
        Config.from_values(values)
    assert str(raised.value) == f"{key}=a{escape}b: expected text without control characters; leave {escape} out"


def test_a_typed_value_with_a_control_character_is_refused():
    with pytest.raises(ConfigError, match=r"^runs_dir=a\\x1bb: expected text without control characters"):
        compose(["runs_dir=a\x1bb"])


def test_a_key_with_a_control_character_is_refused():
    with pytest.raises(ConfigError, match=r"^model=a\\x1bb: expected text without control characters"):
        Config.from_values({**DEFAULT.as_dict(), "model": {"_target_": "x", "a\x1bb": 1}})


@pytest.mark.parametrize("text", ["größe 猫", "a b", "👨\u200d👩", "\u200fשלום"])
def test_other_texts_of_any_language_are_allowed(text):
    assert Config.from_values({**DEFAULT.as_dict(), "runs_dir": text}).runs_dir == text
