"""Resuming a run whose config.yaml is from somebody else: parts with absurd arguments run, or fail in one line."""

from __future__ import annotations

import shutil
import time

import pytest
import yaml

from cnnbench.__main__ import main
from cnnbench.config.compose import compose
from cnnbench.runs.run_dir import RunDir
from cnnbench.training.run import run
from small_nets import TINY

KEPT = ("root", "image_size", "mean", "std", "fingerprint", "lr", "weight_decay", "decay")  # keys of data and optimizer
PARTS = [
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.LambdaLR", "lr_lambda": "x"}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.MultiplicativeLR", "lr_lambda": 1}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 0}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": "x"}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.MultiStepLR", "milestones": 1000000000}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.MultiStepLR", "milestones": ["x"]}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.ConstantLR", "factor": 9}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.LinearLR", "total_iters": 0}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.ExponentialLR", "gamma": "x"}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.SequentialLR", "schedulers": [1, 2], "milestones": [3]}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.PolynomialLR", "total_iters": 0}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": 0}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.ChainedScheduler", "schedulers": []}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.ChainedScheduler", "schedulers": ["x"]}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.CyclicLR", "base_lr": 1, "max_lr": "x"}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.CosineAnnealingWarmRestarts", "T_0": -1}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "max_lr": "x"}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "mode": "x"}),
    ("scheduler", {"_target_": "torch.optim.lr_scheduler._LRScheduler"}),
    ("scheduler", {"_target_": "torch.optim.swa_utils.SWALR", "swa_lr": "x"}),
    ("scheduler", {"_target_": "cnnbench.training.schedulers.step", "every_epochs": 0}),
    ("scheduler", {"_target_": "cnnbench.training.schedulers.multistep", "milestones": ["x"]}),
    ("optimizer", {"_target_": "torch.optim.Adam", "lr": 0.1}),
    ("optimizer", {"_target_": "torch.optim.Adam", "lr": 0.1, "betas": "x"}),
    ("optimizer", {"_target_": "torch.optim.Adam", "lr": 0.1, "fused": "x"}),
    ("optimizer", {"_target_": "torch.optim.Adam", "lr": 0.1, "foreach": 7}),
    ("optimizer", {"_target_": "torch.optim.Adam", "lr": 0.1, "momentum": "x"}),
    ("optimizer", {"_target_": "torch.optim.Adam", "lr": 0.1, "capturable": True}),
    ("optimizer", {"_target_": "torch.optim.Adam", "lr": 0.1, "eps": "x"}),
    ("optimizer", {"_target_": "torch.optim.SGD", "lr": 0.1}),
    ("optimizer", {"_target_": "torch.optim.SGD", "lr": 0.1, "betas": "x"}),
    ("optimizer", {"_target_": "torch.optim.SGD", "lr": 0.1, "fused": "x"}),
    ("optimizer", {"_target_": "torch.optim.SGD", "lr": 0.1, "foreach": 7}),
    ("optimizer", {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": "x"}),
    ("optimizer", {"_target_": "torch.optim.SGD", "lr": 0.1, "capturable": True}),
    ("optimizer", {"_target_": "torch.optim.SGD", "lr": 0.1, "eps": "x"}),
    ("optimizer", {"_target_": "torch.optim.LBFGS", "lr": 0.1}),
    ("optimizer", {"_target_": "torch.optim.LBFGS", "lr": 0.1, "betas": "x"}),
    ("optimizer", {"_target_": "torch.optim.LBFGS", "lr": 0.1, "fused": "x"}),
    ("optimizer", {"_target_": "torch.optim.LBFGS", "lr": 0.1, "foreach": 7}),
    ("optimizer", {"_target_": "torch.optim.LBFGS", "lr": 0.1, "momentum": "x"}),
    ("optimizer", {"_target_": "torch.optim.LBFGS", "lr": 0.1, "capturable": True}),
    ("optimizer", {"_target_": "torch.optim.LBFGS", "lr": 0.1, "eps": "x"}),
    ("optimizer", {"_target_": "torch.optim.SparseAdam", "lr": 0.1}),
    ("optimizer", {"_target_": "torch.optim.SparseAdam", "lr": 0.1, "betas": "x"}),
    ("optimizer", {"_target_": "torch.optim.SparseAdam", "lr": 0.1, "fused": "x"}),
    ("optimizer", {"_target_": "torch.optim.SparseAdam", "lr": 0.1, "foreach": 7}),
    ("optimizer", {"_target_": "torch.optim.SparseAdam", "lr": 0.1, "momentum": "x"}),
    ("optimizer", {"_target_": "torch.optim.SparseAdam", "lr": 0.1, "capturable": True}),
    ("optimizer", {"_target_": "torch.optim.SparseAdam", "lr": 0.1, "eps": "x"}),
    ("optimizer", {"_target_": "torch.optim.Adafactor", "lr": 0.1}),
    ("optimizer", {"_target_": "torch.optim.Adafactor", "lr": 0.1, "betas": "x"}),
    ("optimizer", {"_target_": "torch.optim.Adafactor", "lr": 0.1, "fused": "x"}),
    ("optimizer", {"_target_": "torch.optim.Adafactor", "lr": 0.1, "foreach": 7}),
    ("optimizer", {"_target_": "torch.optim.Adafactor", "lr": 0.1, "momentum": "x"}),
    ("optimizer", {"_target_": "torch.optim.Adafactor", "lr": 0.1, "capturable": True}),
    ("optimizer", {"_target_": "torch.optim.Adafactor", "lr": 0.1, "eps": "x"}),
    ("optimizer", {"_target_": "torch.optim.Muon", "lr": 0.1}),
    ("optimizer", {"_target_": "torch.optim.Muon", "lr": 0.1, "betas": "x"}),
    ("optimizer", {"_target_": "torch.optim.Muon", "lr": 0.1, "fused": "x"}),
    ("optimizer", {"_target_": "torch.optim.Muon", "lr": 0.1, "foreach": 7}),
    ("optimizer", {"_target_": "torch.optim.Muon", "lr": 0.1, "momentum": "x"}),
    ("optimizer", {"_target_": "torch.optim.Muon", "lr": 0.1, "capturable": True}),
    ("optimizer", {"_target_": "torch.optim.Muon", "lr": 0.1, "eps": "x"}),
    ("optimizer", {"_target_": "torch.optim.ASGD", "lr": 0.1}),
    ("optimizer", {"_target_": "torch.optim.ASGD", "lr": 0.1, "betas": "x"}),
    ("optimizer", {"_target_": "torch.optim.ASGD", "lr": 0.1, "fused": "x"}),
    ("optimizer", {"_target_": "torch.optim.ASGD", "lr": 0.1, "foreach": 7}),
    ("optimizer", {"_target_": "torch.optim.ASGD", "lr": 0.1, "momentum": "x"}),
    ("optimizer", {"_target_": "torch.optim.ASGD", "lr": 0.1, "capturable": True}),
    ("optimizer", {"_target_": "torch.optim.ASGD", "lr": 0.1, "eps": "x"}),
    ("optimizer", {"_target_": "torch.optim.Rprop", "lr": 0.1}),
    ("optimizer", {"_target_": "torch.optim.Rprop", "lr": 0.1, "betas": "x"}),
    ("optimizer", {"_target_": "torch.optim.Rprop", "lr": 0.1, "fused": "x"}),
    ("optimizer", {"_target_": "torch.optim.Rprop", "lr": 0.1, "foreach": 7}),
    ("optimizer", {"_target_": "torch.optim.Rprop", "lr": 0.1, "momentum": "x"}),
    ("optimizer", {"_target_": "torch.optim.Rprop", "lr": 0.1, "capturable": True}),
    ("optimizer", {"_target_": "torch.optim.Rprop", "lr": 0.1, "eps": "x"}),
    ("optimizer", {"_target_": "torch.optim.RAdam", "lr": 0.1}),
    ("optimizer", {"_target_": "torch.optim.RAdam", "lr": 0.1, "betas": "x"}),
    ("optimizer", {"_target_": "torch.optim.RAdam", "lr": 0.1, "fused": "x"}),
    ("optimizer", {"_target_": "torch.optim.RAdam", "lr": 0.1, "foreach": 7}),
    ("optimizer", {"_target_": "torch.optim.RAdam", "lr": 0.1, "momentum": "x"}),
    ("optimizer", {"_target_": "torch.optim.RAdam", "lr": 0.1, "capturable": True}),
    ("optimizer", {"_target_": "torch.optim.RAdam", "lr": 0.1, "eps": "x"}),
    ("augment", {"e": {"_target_": "cnnbench.augment.crops.Pad", "padding": 20000}}),
    ("augment", {"e": {"_target_": "cnnbench.augment.crops.Pad", "padding": 1000000}}),
    ("augment", {"e": {"_target_": "cnnbench.augment.crops.RandomCrop", "padding": 100000}}),
    ("augment", {"e": {"_target_": "cnnbench.augment.crops.Resize", "side": 100000}}),
    ("augment", {"e": {"_target_": "cnnbench.augment.crops.Resize", "side": 1000000000}}),
    ("augment", {"e": {"_target_": "cnnbench.augment.crops.CenterCrop", "side": -1}}),
    ("augment", {"e": {"_target_": "cnnbench.augment.transforms.RandomRotation", "degrees": "x"}}),
    ("augment", {"e": {"_target_": "cnnbench.augment.transforms.RandomErasing", "share": "x"}}),
    ("augment", {"e": {"_target_": "cnnbench.augment.crops.RandomResizedCrop", "scale": "x"}}),
    ("augment", {"e": {"_target_": "cnnbench.augment.step.Augment", "steps": {}}}),
    ("augment", {"e": {"_target_": "cnnbench.augment.step.Step"}}),
    ("data", {"_target_": "cnnbench.data.sets.synthetic.Synthetic", "num_classes": 1000000000}),
    ("data", {"_target_": "cnnbench.data.sets.synthetic.Synthetic", "train_size": 1000000000000}),
    ("data", {"_target_": "cnnbench.data.sets.synthetic.Synthetic", "channels": "x"}),
    ("data", {"_target_": "cnnbench.data.sets.imagefolder.ImageFolder", "root": "/dev"}),
    ("data", {"_target_": "cnnbench.data.sets.imagefolder.ImageFolder", "root": "/proc/self/fd"}),
    ("data", {"_target_": "cnnbench.data.sets.class_folders.ClassFolders"}),
    ("data", {"_target_": "cnnbench.data.sets.idx.Idx"}),
    ("data", {"_target_": "cnnbench.data.sets.cifar.Cifar"}),
    ("data", {"_target_": "cnnbench.data.sets.mnist.MNIST", "root": "/dev/null"}),
    ("data", {"_target_": "cnnbench.data.sets.mnist.MNIST", "root": "/nope"}),
    ("data", {"_target_": "cnnbench.data.sets.mnist5k.MNIST5k", "image_size": 4096, "train_size": 3000}),
    ("model", {"_target_": "torchvision.models.DenseNet", "block_config": [1000000]}),
    ("model", {"_target_": "torch.nn.Conv2d", "out_channels": 10, "kernel_size": 1, "padding": 1000000}),
    ("model", {"_target_": "torch.nn.Identity"}),
    ("model", {"_target_": "torchvision.models.resnet18", "weights": "DEFAULT"}),
    ("model", {"_target_": "torchvision.models.ResNet", "block": "x", "layers": [1]}),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> RunDir:
    return run(compose([*TINY, f"runs_dir={tmp_path_factory.mktemp('made')}"])).directory


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("group", "node"), PARTS, ids=str)
def test_a_part_with_absurd_arguments_is_one_line(made, tmp_path, capsys, group, node):
    directory = RunDir(tmp_path / "run")
    directory.best.parent.mkdir(parents=True)
    values = yaml.safe_load(made.config.read_text())
    own = {key: value for key, value in values[group].items() if key in KEPT and group in ("data", "optimizer")}
    values[group] = {**own, **node}
    shutil.copy(made.status_file, directory.status_file)
    directory.config.write_text(yaml.safe_dump(values))
    began = time.process_time()
    code = main([f"resume={directory.path}"])
    error = capsys.readouterr().err
    assert (code in (0, 2, 3), error.count("\n") <= 1) == (True, True), error
    assert time.process_time() - began < 20
