"""A run's identity, and what it must survive: parts that move, keys and arguments that are added."""

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


def composed(entry):
    return compose(entry["overrides"]).model_copy(update={"swept": entry.get("swept", [])})


@pytest.mark.parametrize("entry", KNOWN, ids=lambda entry: " ".join(entry["overrides"]) or "default")
def test_hashes_of_before_belong_to_the_same_configs(entry):
    assert composed(entry).identities()[1] == entry["hash"]


@pytest.mark.parametrize("entry", KNOWN, ids=lambda entry: " ".join(entry["overrides"]) or "default")
def test_identities_are_the_committed_ones(entry):
    assert composed(entry).identity() == entry["identity"]


def test_configs_of_different_meaning_have_different_identities():
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


def test_a_part_keeps_its_identity_in_another_module(monkeypatch):
    config = compose(["augment=basic"])
    moved = {name: path.replace("cnnbench.", "cnnbench.elsewhere.") for name, path in shipped_parts().items()}
    monkeypatch.setattr("cnnbench.config.shipped_parts.shipped_parts", lambda: moved)
    again = Config.check(config.as_dict())
    assert again.model.target == "cnnbench.elsewhere." + config.model.target.removeprefix("cnnbench.")
    assert again.identities() == config.identities()


def test_the_users_own_parts_enter_by_their_dotted_path():
    ours, theirs = (
        compose(["model=custom", f"model._target_={path}.MyNet"]) for path in ("mypkg.nets", "mypkg.others")
    )
    assert part_name("mypkg.nets.MyNet") == "mypkg.nets.MyNet"
    assert ours.identity() != theirs.identity()


def test_a_users_class_with_the_name_of_a_shipped_one_is_another():
    assert compose(["model._target_=mypkg.LeNet5"]).identity() != compose([]).identity()


def test_an_added_key_that_is_as_before_changes_no_hash(monkeypatch):
    config = compose([])
    values = config.deciding() | {"epochs": 10}
    hashes = identity.identity_hash(values), identity.former_hash(values)
    monkeypatch.setitem(identity.EARLIER, "trainer.new_key", 1)
    monkeypatch.setitem(identity.EARLIER, "LeNet5.new_argument", None)
    monkeypatch.setitem(identity.EARLIER, "another", [1])
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


def test_an_argument_is_added_to_its_own_part_alone(monkeypatch):
    monkeypatch.setitem(identity.EARLIER, "LeNet5.new_argument", 3)
    values = compose(["model=lenet"]).deciding()
    values["model"] = {**values["model"], "new_argument": 3}
    assert identity.identity_hash(values) != compose(["model=lenet"]).identity()


def test_a_config_of_before_gets_the_value_that_runs_had_then(monkeypatch):
    monkeypatch.setitem(identity.EARLIER, "batch_size", 48)  # as though it had been added after this config was written
    monkeypatch.setitem(identity.EARLIER, "LeNet5.activation", "tanh")
    saved = compose(["model=lenet5"]).as_dict()
    del saved["batch_size"], saved["model"]["activation"]
    config = Config.restore(saved)
    assert config.batch_size == 48
    assert config.model.arguments["activation"] == "tanh"


def test_what_a_saved_config_has_is_kept(monkeypatch):
    monkeypatch.setitem(identity.EARLIER, "batch_size", 48)
    assert Config.restore(compose(["batch_size=32"]).as_dict()).batch_size == 32


def test_every_entry_of_earlier_names_a_key_or_a_part():
    for name in identity.EARLIER:
        group, _, key = name.rpartition(".")
        assert key
        assert group in shipped_parts() or group in ("", *Config.model_fields)


def test_keys_outside_the_identity_are_marked_in_the_schema():
    assert set(OUTSIDE_IDENTITY) == {
        "name", "runs_dir", "resume", "log", "choices", "swept", "threads", "channels_last", "data.root", "data.pipeline",
        "trainer.devices", "trainer.num_nodes", "trainer.checkpoint_every_s", "trainer.cuda_graph",
    }  # fmt: skip


def test_a_path_to_a_part_that_does_not_exist_is_refused():
    from cnnbench.config.instantiate import locate

    with pytest.raises(ConfigError, match="cannot be imported"):
        locate(compose(["model._target_=cnnbench.models.nothing.NoSuchNet"]).model, "model")
