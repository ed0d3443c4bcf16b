"""A run directory from an untrusted source runs none of its code, neither pickled in checkpoints nor named in configs."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.optim.lr_scheduler import LambdaLR

from cnnbench.__main__ import main
from cnnbench.augment.transforms import RandomHorizontalFlip
from cnnbench.config.compose import compose, conf_dir
from cnnbench.config.schema import Node
from cnnbench.data.sets.mnist5k import MNIST5k
from cnnbench.data.sets.synthetic import Synthetic
from cnnbench.errors import ConfigError, Untrusted
from cnnbench.runs.commands import resume_command
from cnnbench.runs.load_net import load_net
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.trust import KINDS, require_trusted_parts
from cnnbench.training.run import run
from nets import Linear
from small_nets import TINY

GROUPS = ("model", "data", "augment", "optimizer", "scheduler")
REFUSED = "if you know where this run comes from, trust it: cnnbench "


# ---- parts from outside cnnbench ------------------------------------------------------------------------------------------


class OwnData(Synthetic):
    pass


class OwnDigits(MNIST5k):
    pass


class OwnFlip(RandomHorizontalFlip):
    pass


class OwnSGD(torch.optim.SGD):
    pass


def own_schedule(optimizer, **keys):
    return LambdaLR(optimizer, lambda step: 0.5)


OWN = {
    "model": "nets.Linear",
    "data": "test_trust.OwnData",
    "augment": "test_trust.OwnFlip",
    "optimizer": "test_trust.OwnSGD",
    "scheduler": "test_trust.own_schedule",
}


def own_keys(runs: Path) -> list[str]:
    """Overrides for a run whose parts are all from outside cnnbench."""
    keys = [*TINY, "model=custom", "model._target_=nets.Linear", "augment=flip", "optimizer=sgd", f"runs_dir={runs}"]
    keys += [f"{group}._target_={OWN[group]}" for group in ("data", "optimizer", "scheduler")]
    return [*keys, f"augment.flip._target_={OWN['augment']}"]


@pytest.fixture(scope="module")
def own_run(tmp_path_factory) -> RunDir:
    return run(compose(own_keys(tmp_path_factory.mktemp("own")))).directory


# ---- hostile parts -------------------------------------------------------------------------------------------------


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def canary(tmp_path, monkeypatch) -> Path:
    """A folder that hostile code would make. The current folder holds evil.py and hubconf.py, which make it when imported."""
    here, canary = tmp_path / "here", tmp_path / "canary"
    here.mkdir()
    for name in ("evil.py", "hubconf.py"):
        (here / name).write_text(f"import os; os.makedirs({str(canary)!r}, exist_ok=True)")
    (here / "evil.pickle").write_bytes(pickle.dumps(Hostile(canary)))
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(here)
    yield canary
    sys.modules.pop("evil", None)


@pytest.fixture
def command(capsys, tmp_path):
    """Runs a command on a run directory; returns exit code, stdout and stderr."""
    picture = tmp_path / "digit.png"
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(picture)

    def call(name: str, directory: RunDir, *flags: str) -> tuple[int, str, str]:
        capsys.readouterr()
        if name == "resume":
            directory.result.unlink(missing_ok=True)
            return main([f"resume={directory.path}", *flags]), *capsys.readouterr()
        pictures = [str(picture)] if name in ("predict", "features") else []
        return main([name, str(directory.path), *pictures, *flags]), *capsys.readouterr()

    return call


def hostile_nodes(canary: Path) -> dict[str, dict]:
    """Targets, with arguments, that would make the canary if they were imported or called like a model."""
    shell, touch = {"command": f"mkdir -p {canary}"}, {"args": ["mkdir", "-p", str(canary)]}
    hub = {"repo_or_dir": ".", "model": "evil", "source": "local"}
    file = {"f": "evil.pickle", "weights_only": False}
    return {
        "os.system": shell,
        "posix.system": shell,
        "subprocess.Popen": touch,
        "subprocess.run": {"args": "x"},
        "builtins.eval": {"source": "1"},
        "builtins.exec": {"source": "1"},
        "os.makedirs": {"name": str(canary)},
        "numpy.load": {"file": "evil.pickle", "allow_pickle": True},
        "evil.Net": {},
        "evil": {},
        "evil:Net": {},
        "torch.hub.load": hub,
        "torch.load": file,
        "torch.os.system": shell,
        "torch.utils.cpp_extension.load": {"name": "evil", "sources": ["evil.cpp"]},
        "torch.nn.modules.module.torch.load": file,
        "torch.nn.modules.module.torch.hub.load": hub,
        "torch.nn.modules.module.warnings.sys.modules": {},
        "torch.nn.Module.__init__.__globals__": {},
        "torchvision.models.resnet.torch.load": file,
        "torchvision.os.makedirs": {"name": str(canary)},
        "cnnbench.config.instantiate.pkgutil.os.makedirs": {"name": str(canary)},
        "cnnbench.config.instantiate.pkgutil.resolve_name": {"name": "evil"},
        "cnnbench.config.instantiate.pkgutil.importlib.import_module": {"name": "evil"},
        "cnnbench.runs.environment.subprocess.Popen": touch,
        "cnnbench.runs.status_and_log.logging.FileHandler": {"filename": str(canary)},
        "cnnbench.runs.run_dir.os.system": shell,
        "cnnbench.runs.load_net.torch.load": file,
        "cnnbenchevil.Net": {},
        "cnnbench.data.datamodule.LightningDataModule": {},
        "evil\n\x1b[2Jtorch.nn.Linear": {},
    }


NAMES = list(hostile_nodes(Path()))
QUICK = ("os.system", "builtins.eval", "numpy.load", "evil.Net", "torch.hub.load", "torch.load", "torch.os.system")
QUICK += ("torch.nn.modules.module.torch.hub.load", "torch.nn.Module.__init__.__globals__", NAMES[-1])
QUICK += ("cnnbench.config.instantiate.pkgutil.os.makedirs", "cnnbench.runs.environment.subprocess.Popen")


def put(directory: RunDir, where: str, group: str, node: dict) -> None:
    """Replaces a group of config.yaml, or of the config in best.ckpt, by `node`."""
    content = torch.load(directory.best, weights_only=True)
    config = content["config"] if where == "best.ckpt" else yaml.safe_load(directory.config.read_text())
    kept = {key: value for key, value in config[group].items() if group in ("data", "optimizer")}
    config[group] = {"evil": node} if group == "augment" else {**kept, **node}
    if where == "best.ckpt":
        torch.save(content, directory.best)
    else:
        directory.config.write_text(yaml.safe_dump(config))


def assert_refused(result: tuple[int, str, str], *words: str, code: int = 2) -> None:
    """Asserts that a command printed one line on stderr, which contains these words, and nothing else."""
    assert (result[0], result[1]) == (code, "")
    assert result[2].startswith("cnnbench: ")
    assert result[2].endswith("\n")
    assert result[2][:-1].isprintable()
    assert [word for word in words if word not in result[2]] == []


# ---- what a config names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_a_net_from_outside_cnnbench_is_neither_imported_nor_called(command, copied, canary, target):
    put(copied, "best.ckpt", "model", {"_target_": target, **hostile_nodes(canary)[target]})
    assert_refused(command("predict", copied))
    assert not canary.exists()
    assert "evil" not in sys.modules


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(
    ("name", "where"),
    [
        *(("evaluate", "config.yaml"), ("resume", "config.yaml")),
        *(("evaluate", "best.ckpt"), ("predict", "best.ckpt"), ("features", "best.ckpt")),
    ],
)
def test_a_foreign_name_in_any_group_is_refused_in_one_line(command, copied, canary, name, where, group):
    for target in ("evil.Part", "torch.hub.load"):
        put(copied, where, group, {"_target_": target, **hostile_nodes(canary).get(target, {})})
        assert_refused(command(name, copied), f"{copied.path}: its config names {target}, which is no ", REFUSED)
        assert not canary.exists()
        assert "evil" not in sys.modules


@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("data", "cnnbench.data.datamodule.LightningDataModule"),
        ("data", "cnnbench.models.lenet5.LeNet5"),
        ("augment", "cnnbench.files.write_atomic"),
        ("optimizer", "torch.optim.optimizer.OrderedDict"),
        ("optimizer", "cnnbench.cli.ops.subprocess.Popen"),
        ("scheduler", "cnnbench.runs.load_net.load_net"),
        ("scheduler", "cnnbench.training.schedulers.Optimizer"),
        ("scheduler", "torch.optim.SGD"),
        ("model", "torch.nn.functional.relu"),
        ("model", "torchvision.models.get_weight"),
        ("model", "torchvision.models.list_models"),
        ("model", "torchvision.models.resnet.partial"),
        ("model", "cnnbench.training.classifier.LightningModule"),
    ],
)
def test_a_part_of_a_trusted_package_must_be_of_the_kind_that_its_group_needs(command, copied, group, target):
    put(copied, "config.yaml", group, {"_target_": target})
    for name in ("evaluate", "resume"):
        assert_refused(command(name, copied), target)


def test_a_hostile_module_in_the_current_folder_is_not_imported(copied, canary):
    put(copied, "config.yaml", "scheduler", {"_target_": "evil.Schedule"})
    command = [sys.executable, "-m", "cnnbench", "evaluate", str(copied.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert_refused(
        (done.returncode, done.stdout, done.stderr), "evil.Schedule, which is no schedule of cnnbench or torch"
    )
    assert not canary.exists()


def test_a_run_on_several_devices_is_refused_once_before_its_ranks_start(command, copied, canary):
    put(copied, "config.yaml", "model", {"_target_": "evil.Net"})
    copied.config.write_text(copied.config.read_text().replace("devices: 1", "devices: 2"))
    assert_refused(command("resume", copied), f"{REFUSED}resume={copied.path} --trust\n")
    assert not canary.exists()


def test_predict_and_features_read_no_config_yaml(command, copied, canary):
    for group in GROUPS:
        put(copied, "config.yaml", group, {"_target_": "evil.Part"})
    for name in ("predict", "features"):
        assert command(name, copied)[0] == 0
    assert not canary.exists()


def test_a_data_choice_that_is_a_path_to_a_hostile_file_does_not_change_the_class(command, copied, canary):
    text = (conf_dir() / "data" / "mnist5k.yaml").read_text()
    Path("evil.yaml").write_text(text.replace("cnnbench.data.sets.mnist5k.MNIST5k", "evil.Data"))
    config = yaml.safe_load(copied.config.read_text())
    config["choices"]["data"] = os.path.relpath("evil", conf_dir() / "data")
    copied.config.write_text(yaml.safe_dump(config))
    code, out, _ = command("evaluate", copied, "data.test_size=100", "--json")
    assert (code, json.loads(out)["data"]) == (0, "mnist5k")
    assert not canary.exists()


def test_load_net_refuses_a_foreign_net_without_trust(own_run):
    with pytest.raises(Untrusted, match=r": its config names nets\.Linear, which is no net of cnnbench, torch or"):
        load_net(own_run.path)
    net, _ = load_net(own_run.path, trust=True)
    assert isinstance(net, Linear)


# ---- what a checkpoint holds ----------------------------------------------------------------------------------------


def make_hostile(path: Path, form: str, canary: Path) -> None:
    """Changes a checkpoint so that it makes the canary when it is unpickled."""
    hostile = Hostile(canary)
    if form == "pickle":
        path.write_bytes(pickle.dumps(hostile))
    else:
        torch.save({**torch.load(path, weights_only=True), "extra": hostile} if form == "within" else hostile, path)
    check = path.with_name("check.ckpt")
    shutil.copy(path, check)
    if form != "pickle":
        torch.load(check, weights_only=False)
    else:
        pickle.loads(check.read_bytes())
    canary.rmdir()  # the checkpoint has made it: it is hostile


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("trust", [[], ["--trust"]], ids=["", "trusted"])
@pytest.mark.parametrize("form", ["pickle", "archive", "within"])
@pytest.mark.parametrize("name", ["evaluate", "predict", "features"])
def test_a_hostile_checkpoint_is_refused_in_one_line(command, copied, canary, name, form, trust):
    make_hostile(copied.best, form, canary)
    assert_refused(command(name, copied, *trust), f"{copied.best}: not a checkpoint of cnnbench, or damaged")
    assert not canary.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["within", pytest.param("pickle", marks=pytest.mark.slow)])
def test_a_run_does_not_resume_from_a_hostile_checkpoint(command, copied, canary, form):
    make_hostile(copied.last, form, canary)
    code, _, error = command("resume", copied, "--trust")
    assert (code in (0, 2, 3), error.count("\n") <= 1) == (True, True)  # started anew, or refused
    assert not canary.exists()


def test_nothing_is_downloaded_to_a_folder_that_only_a_loaded_config_names(command, copied, tmp_path, monkeypatch):
    monkeypatch.setattr("cnnbench.data.download.fetch.download", None)
    values = yaml.safe_load(copied.config.read_text())
    values["data"] |= {"_target_": "cnnbench.data.sets.mnist.MNIST", "root": str(tmp_path / "chosen" / "by them")}
    copied.config.write_text(yaml.dump(values))
    code, _, error = command("resume", copied)
    assert (code, error.count("\n")) == (2, 1)
    assert f"its config has the data in {tmp_path}/chosen/by them, which does not exist; if you know where" in error
    assert error.endswith(f": cnnbench resume={copied.path} --trust\n")
    assert not (tmp_path / "chosen").exists()


def test_a_run_whose_data_need_no_files_resumes_though_their_folder_is_absent(command, copied, tmp_path):
    values = yaml.safe_load(copied.config.read_text())
    values["data"]["root"] = str(tmp_path / "absent")
    copied.config.write_text(yaml.dump(values))
    assert command("resume", copied)[0] == 0
    assert not (tmp_path / "absent").exists()


@pytest.mark.slow
def test_a_run_with_hostile_best_weights_starts_anew(command, copied, canary):
    make_hostile(copied.best, "archive", canary)
    code, output, _ = command("resume", copied)
    assert (code, output.count("does not match best.ckpt, not used")) == (0, 1)
    assert not canary.exists()


# ---- with --trust ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", GROUPS)
def test_a_part_from_outside_cnnbench_is_refused_with_the_command_to_type(command, copied, group):
    put(copied, "config.yaml", group, {"_target_": OWN[group]})
    typed = shlex.join(["evaluate", str(copied.path), "--trust"])
    words = f"{copied.path}: its config names {OWN[group]}, which is no ", f"{REFUSED}{typed}\n"
    assert_refused(command("evaluate", copied), *words)


@pytest.mark.parametrize("name", ["evaluate", "predict", "features", "resume"])
def test_the_command_of_the_refusal_works(own_run, command, capsys, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    directory = RunDir(Path(shutil.copytree(own_run.path, tmp_path / "copy")))
    refused = command(name, directory, *(["--layer", "net"] if name == "features" else []))
    assert_refused(refused, REFUSED)
    typed = shlex.split(refused[2].partition(REFUSED)[2])
    assert typed[-1] == "--trust"
    assert main(typed) == 0
    assert capsys.readouterr().err == ""


def test_the_commands_that_a_run_prints_work(own_run, finished, capsys):
    assert main([*own_keys(own_run.path.parents[1]), "resume=auto"]) == 0  # typed parts need no trust
    printed = capsys.readouterr().out.splitlines()
    evaluate = next(line for line in printed if line.startswith("evaluate "))
    assert main(shlex.split(evaluate)[2:]) == 0
    assert next(line for line in printed if line.startswith("predict ")).endswith(" IMAGE --trust")
    assert shlex.split(resume_command(own_run.path))[1:] == [f"resume={own_run.path}", "--trust"]
    assert "--trust" not in resume_command(finished.path)


def test_trust_without_a_run_is_refused(capsys):
    assert main(["model=custom", "model._target_=nets.Linear", "--trust"]) == 2
    error = "cnnbench: --trust: goes with resume=RUN_DIR; what you type yourself needs none\n"
    assert capsys.readouterr().err == error


def test_a_typed_data_set_needs_no_trust(command, finished, own_run):
    assert command("evaluate", finished, f"data._target_={__name__}.OwnDigits", "data.test_size=10")[0] == 0
    assert_refused(command("evaluate", own_run, "data=synthetic"), "nets.Linear")


def test_a_function_that_builds_a_net_works_with_trust(copied, command):
    put(copied, "best.ckpt", "model", {"_target_": f"{__name__}.make_lenet5"})
    assert_refused(command("predict", copied), "make_lenet5, which is no net")
    assert command("predict", copied, "--trust")[0] == 0


def make_lenet5(in_channels, num_classes):
    from cnnbench.models.lenet5 import LeNet5

    return LeNet5(in_channels=in_channels, num_classes=num_classes)


@pytest.mark.parametrize("name", ["evaluate", "predict", "features", "reproduce"])
def test_help_lists_trust(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert "--trust" in capsys.readouterr().out


# ---- shipped parts ---------------------------------------------------------------------------------------------------


def shipped() -> list[tuple[str, str]]:
    """Every group and `_target_` in conf/, except for the one that the user must type."""
    found = set()
    for file in conf_dir().glob("*/*.yaml"):
        content = yaml.safe_load(file.read_text()) or {}
        nodes = [content, *(value for value in content.values() if isinstance(value, dict))]
        found |= {(file.parent.name, node["_target_"]) for node in nodes if "_target_" in node}
    return sorted(found - {("model", "???")})


@pytest.fixture(scope="module")
def default():
    return compose([])


def test_every_group_of_conf_with_targets_is_checked():
    assert {group for group, _ in shipped()} == set(KINDS) == set(GROUPS)


@pytest.mark.parametrize(
    ("group", "target"),
    [
        *shipped(),
        *(("model", f"torchvision.models.{name}") for name in ("resnet18", "vit_b_16", "get_model", "ResNet")),
        *(("model", f"torchvision.models.{name}") for name in ("segmentation.fcn_resnet50", "alexnet.alexnet")),
        *(
            ("model", "torch.nn.Sequential"),
            ("optimizer", "torch.optim.Adadelta"),
            ("optimizer", "torch.optim.adam.Adam"),
        ),
        *(("scheduler", "torch.optim.lr_scheduler.StepLR"), ("scheduler", "torch.optim.swa_utils.SWALR")),
    ],
)
def test_parts_of_cnnbench_torch_and_torchvision_need_no_trust(default, group, target):
    node = Node(_target_=target)
    require_trusted_parts(
        Path("run"), default.model_copy(update={group: {"step": node} if group == "augment" else node})
    )


def test_a_name_that_does_not_exist_is_refused(default):
    gone = default.model_copy(update={"model": Node(_target_="cnnbench.models.gone.Net")})
    with pytest.raises(ConfigError, match=r"^model\._target_=cnnbench\.models\.gone\.Net: cannot be imported"):
        require_trusted_parts(Path("run"), gone)


def test_foreign_names_are_refused_before_torch_is_imported(own_run):
    code = "import sys; from cnnbench.__main__ import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, "evaluate", str(own_run.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "2 False\n"
