"""A run's identity is stable: parts may move to other modules, keys and arguments may be added."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from cnnbench.config import identity
from cnnbench.config.compose import compose
from cnnbench.config.schema import OUTSIDE_IDENTITY, Config
from cnnbench.config.shipped_parts import _definitions, current_path, part_name, shipped_parts
from cnnbench.errors import ConfigError

BEFORE = Path(__file__).parents[1] / "fixtures" / "before"
KNOWN = json.loads((BEFORE / "identities.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("entry", KNOWN, ids=lambda entry: " ".join(entry["overrides"]) or "default")
def test_a_config_has_the_committed_identity_and_the_hash_of_version_0_1_0(entry):
    config = compose(entry["overrides"]).model_copy(update={"swept": entry.get("swept", [])})
    assert config.identities() == (entry["identity"], entry["hash"])
    assert config.identity() == entry["identity"]


def test_configs_differ_in_identity_where_they_differed_in_version_0_1_0():
    same = Counter(entry["identity"] for entry in KNOWN)
    before = Counter(entry["hash"] for entry in KNOWN)
    assert sorted(same.values()) == sorted(before.values())


def test_names_of_shipped_parts_are_unique():
    names = Counter(name for name, _ in _definitions())
    assert [name for name, count in names.items() if count > 1] == []


def test_every_part_that_conf_names_is_found_by_its_name():
    conf = Path(__file__).parents[2] / "conf"
    targets = {
        target
        for file in conf.glob("*/*.yaml")
        for target in re.findall(r"_target_: (cnnbench\.\S+)", file.read_text())
    }
    assert len(targets) > 30
    assert {target: current_path(target) for target in targets} == {target: target for target in targets}


def test_a_part_that_moves_to_another_module_keeps_its_identity(monkeypatch):
    config = compose(["augment=basic"])
    moved = {name: path.replace("cnnbench.", "cnnbench.moved.") for name, path in shipped_parts().items()}
    monkeypatch.setattr("cnnbench.config.shipped_parts.shipped_parts", lambda: moved)
    again = Config.from_values(config.as_dict())
    assert again.model.target == "cnnbench.moved." + config.model.target.removeprefix("cnnbench.")
    assert again.identities() == config.identities()


def test_a_users_part_enters_by_its_dotted_path():
    ours, theirs = (
        compose(["model=custom", f"model._target_={path}.MyNet"]) for path in ("mypkg.nets", "mypkg.others")
    )
    assert part_name("mypkg.nets.MyNet") == "mypkg.nets.MyNet"
    assert ours.identity() != theirs.identity()


def test_a_users_class_with_a_shipped_name_has_another_identity():
    assert compose(["model._target_=mypkg.LeNet5"]).identity() != compose([]).identity()


def test_an_added_key_changes_a_hash_only_where_its_value_is_not_the_earlier_one(monkeypatch):
    config = compose([])
    values = config.identity_values() | {"epochs": 10}
    hashes = identity.identity_hash(values), identity.former_hash(values)
    monkeypatch.setitem(identity.EARLIER_VALUES, "trainer.new_key", 1)
    monkeypatch.setitem(identity.EARLIER_VALUES, "LeNet5.new_argument", None)
    monkeypatch.setitem(identity.EARLIER_VALUES, "another", [1])
    added = {
        **values,
        "another": [1],
        "trainer": {**values["trainer"], "new_key": 1},
        "model": {**values["model"], "new_argument": None},
    }
    assert (identity.identity_hash(added), identity.former_hash(added)) == hashes
    for changed in (
        {**added, "another": [2]},
        {**added, "trainer": {**added["trainer"], "new_key": 2}},
        {**added, "model": {**added["model"], "new_argument": 1}},
    ):
        assert identity.identity_hash(changed) != hashes[0]


def test_an_added_argument_concerns_its_own_part_only(monkeypatch):
    monkeypatch.setitem(identity.EARLIER_VALUES, "LeNet5.new_argument", 3)
    values = compose(["model=lenet"]).identity_values()
    values["model"] = {**values["model"], "new_argument": 3}
    assert identity.identity_hash(values) != compose(["model=lenet"]).identity()


def test_an_earlier_config_gets_the_earlier_values_of_added_keys(monkeypatch):
    # as if the key had been added after this config was written
    monkeypatch.setitem(identity.EARLIER_VALUES, "batch_size", 48)
    monkeypatch.setitem(identity.EARLIER_VALUES, "LeNet5.activation", "tanh")
    saved = compose(["model=lenet5"]).as_dict()
    del saved["batch_size"], saved["model"]["activation"]
    config = Config.from_saved(saved)
    assert config.batch_size == 48
    assert config.model.arguments["activation"] == "tanh"


def test_values_that_a_saved_config_holds_are_kept(monkeypatch):
    monkeypatch.setitem(identity.EARLIER_VALUES, "batch_size", 48)
    assert Config.from_saved(compose(["batch_size=32"]).as_dict()).batch_size == 32


def test_every_earlier_value_belongs_to_a_key_or_a_part():
    for name in identity.EARLIER_VALUES:
        group, _, key = name.rpartition(".")
        assert key
        assert group in shipped_parts() or group in ("", *Config.model_fields)


def test_the_keys_outside_the_identity_are_these():
    assert set(OUTSIDE_IDENTITY) == {
        "name", "runs_dir", "resume", "log", "choices", "swept", "threads", "channels_last", "data.root",
        "data.typed_root", "data.pipeline",
        "trainer.devices", "trainer.num_nodes", "trainer.checkpoint_every_s", "trainer.cuda_graph",
    }  # fmt: skip


def test_a_shipped_path_to_no_part_is_refused():
    from cnnbench.config.instantiate import locate

    with pytest.raises(ConfigError, match="cannot be imported"):
        locate(compose(["model._target_=cnnbench.models.nothing.NoSuchNet"]).model, "model")
