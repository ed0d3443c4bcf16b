import hashlib
import json

import pytest

from cnnbench.compose import compose

CHANGES = [
    "seed=1",
    "epochs=11",
    "batch_size=32",
    "optimizer.lr=0.1",
    "optimizer=sgd",
    "model=simplecnn",
    "init=paddle",
    "precision=bf16",
]
CHANGES += [
    "data=mnist",
    "data.image_size=32",
    "data.mean=0.5",
    "data.train_size=10",
    "data.split_seed=1",
    "trainer.max_steps=5",
]
KEEPS = [
    "name=other",
    "runs_dir=elsewhere",
    "resume=auto",
    "log=full",
    "threads=7",
    "data.root=/somewhere",
    "data.pipeline=memory",
]
KEEPS += ["trainer.devices=2", "trainer.num_nodes=2", "trainer.checkpoint_every_s=60"]


@pytest.mark.parametrize("change", CHANGES)
def test_what_decides_a_number_changes_the_identity(change):
    assert compose([change]).identity() != compose([]).identity()


@pytest.mark.parametrize("keep", KEEPS)
def test_names_places_and_devices_leave_the_identity_alone(keep):
    assert compose([keep]).identity() == compose([]).identity()


def test_how_a_value_was_chosen_is_no_part_of_the_identity():
    by_recipe = compose(["recipe=nndl_lenet"])
    by_hand = compose(
        ["optimizer=sgd", "optimizer.lr=0.1", "scheduler=constant", "epochs=5", "init=paddle_create", "data.mean=0.5"]
        + ["data.std=0.5", "trainer.val_every_steps=15"]
    )
    assert by_recipe.identity() == by_hand.identity()
    assert by_recipe.choices != by_hand.choices


def test_the_identity_is_the_hash_of_the_config_without_those_keys(finished):
    """Recomputed from the file alone, as somebody else would."""
    import yaml

    values = yaml.safe_load(finished.config.read_text())
    for key in ("runs_dir", "name", "resume", "log", "choices", "threads"):
        del values[key]
    for key in ("devices", "num_nodes", "checkpoint_every_s"):
        del values["trainer"][key]
    for key in ("root", "pipeline"):
        del values["data"][key]
    values["augment"] = list(values["augment"].items())
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert json.loads(finished.result.read_text())["config_hash"] == digest
    assert finished.path.name == f"seed0_{digest[:8]}"
