"""Tests that need a GPU: `make gpu-check` runs them, and prints a table."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from cnnbench.config.compose import compose, conf_dir, groups
from cnnbench.config.schema import Config
from cnnbench.data.loader import BatchPlan, Images, Loader, Normalization
from cnnbench.errors import Diverged, Interrupted, RunFailed
from cnnbench.runs.load_net import load_checkpoint
from cnnbench.runs.run_dir import RunDir
from cnnbench.sweep.benchmark_steps import measure_job
from cnnbench.training.callbacks.graceful_stop import GracefulStop
from cnnbench.training.factories import build_augment
from cnnbench.training.run import run

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")]


def test_a_default_run_uses_the_gpu_in_mixed_precision_with_the_images_in_its_memory(tmp_path):
    outcome = run(compose([f"runs_dir={tmp_path}", "epochs=3"]))
    frozen = outcome.directory.config.read_text()
    assert outcome.result.precision in ("bf16", "16")
    assert "accelerator: gpu" in frozen
    assert "pipeline: device" in frozen
    assert outcome.result.metrics["test/acc"] > 0.8


@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_a_run_has_the_precision_of_its_config(precision, tmp_path, record_property):
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU has no bf16")
    result = run(compose([f"runs_dir={tmp_path}", "epochs=3", f"precision={precision}", "model=resnet20"])).result
    assert result.precision == precision
    assert result.numerics["channels_last"] == (precision != "32")
    assert result.metrics["test/acc"] > 0.8
    record_property("images/s", f"{result.samples_per_s:,.0f}")


@pytest.mark.parametrize("deterministic", [True, False])
def test_deterministic_sets_tf32_and_cudnn_benchmark_and_is_in_the_result(deterministic, tiny, tmp_path):
    result = run(compose([*tiny, f"runs_dir={tmp_path}", f"deterministic={deterministic}"])).result
    assert result.numerics["tf32"] == torch.backends.cudnn.allow_tf32 == (not deterministic)
    assert result.numerics["cudnn_benchmark"] == torch.backends.cudnn.benchmark == (not deterministic)
    assert torch.are_deterministic_algorithms_enabled() == deterministic


@pytest.mark.parametrize("precision", ["32", "16"])
def test_a_deterministic_run_gives_the_same_bits_again(precision, tmp_path):
    base = [
        f"runs_dir={tmp_path}",
        "epochs=2",
        "deterministic=true",
        f"precision={precision}",
        "model=resnet20",
        "augment=basic",
    ]
    first, second = (load_checkpoint(run(compose(base)).directory.last)["state_dict"] for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_compiled_net_is_as_accurate_and_its_checkpoint_has_plain_names(tmp_path, record_property):
    result = run(compose([f"runs_dir={tmp_path}", "epochs=3", "compile=true", "model=resnet20"]))
    assert result.result.metrics["test/acc"] > 0.8
    assert not any("_orig_mod" in name for name in load_checkpoint(result.directory.best)["state_dict"])
    record_property("images/s", f"{result.result.samples_per_s:,.0f}")


def test_out_of_gpu_memory_fails_with_what_to_try(tmp_path):
    with pytest.raises(RunFailed, match=r"out of memory .*; try accumulate=2"):
        run(compose([f"runs_dir={tmp_path}", "epochs=1", "model=vgg19", "data=synthetic", "data.train_size=8192", "batch_size=8192",
                     "data.image_size=224", "data.pipeline=memory"]))  # fmt: skip


def test_a_diverging_run_reports_its_step_and_learning_rate(tmp_path):
    with pytest.raises(Diverged, match=r"in step \d+, lr"):
        run(
            compose([f"runs_dir={tmp_path}", "optimizer=sgd", "optimizer.lr=1e6", "scheduler=constant", "precision=32"])
        )


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("sync", [True, False])
def test_two_gpus_give_one_run(sync, tmp_path):
    command = [
        *(sys.executable, "-m", "cnnbench", "trainer.devices=2", f"trainer.sync_batchnorm={sync}", "model=resnet20"),
        *("epochs=3", f"runs_dir={tmp_path}"),
    ]
    subprocess.run(command, check=True)
    (directory,) = tmp_path.glob("*/*")
    assert Config.load(directory / "config.yaml").trainer.devices == 2
    assert (directory / "result.json").is_file()


def test_the_pipeline_changes_no_number(tmp_path):
    base = [f"runs_dir={tmp_path}", "epochs=1", "deterministic=true", "precision=32"]
    device, memory = (run(compose([*base, f"data.pipeline={place}"])).result.metrics for place in ("device", "memory"))
    assert device == pytest.approx(memory, abs=1e-6)


@pytest.mark.parametrize("model", ["alexnet", "vgg11", "googlenet", "resnet18", "resnet20", "lenet5_by_hand"])
def test_a_net_of_each_family_trains_deterministically_in_mixed_precision(model, tiny, tmp_path):
    result = run(compose([*tiny, f"model={model}", f"runs_dir={tmp_path}", "deterministic=true"])).result
    assert result.precision in ("bf16", "16")
    assert 0 <= result.metrics["test/acc"] <= 1


@pytest.mark.parametrize(
    "choice", sorted(path.stem for path in (conf_dir() / "augment").glob("*.yaml") if path.stem != "none")
)
def test_augmented_batches_are_the_same_on_the_gpu_and_on_the_cpu(choice):
    steps = build_augment(compose([f"augment={choice}"]), 32, [0.5] * 3)
    native = steps.stored_side(48, 32) or 32
    pixels = torch.randint(0, 256, (64, 3, native, native), dtype=torch.uint8)
    images = Images(pixels, torch.arange(64))
    on_gpu = torch.device("cuda")
    batches = [
        next(iter(Loader(held, BatchPlan(64, seed=0), Normalization([0.5] * 3, [0.25] * 3), device, steps)))
        for held, device in ((images, torch.device("cpu")), (images, on_gpu), (images.to(on_gpu), on_gpu))
    ]
    for x, y in batches[1:]:
        assert x.is_cuda
        assert torch.equal(y.cpu(), batches[0][1])
        torch.testing.assert_close(x.cpu(), batches[0][0], rtol=0, atol=0.25 / 255 / 0.25)  # a quarter of a grey level


# ---- steps as a CUDA graph -------------------------------------------------------------------------------------------

STEPS = [
    "data=synthetic",
    "data.train_size=100",
    "data.val_size=16",
    "data.test_size=16",
    "batch_size=8",
    "epochs=2",  # of 12.5 batches
]


def weights_of(directory):
    return load_checkpoint(directory.last)["state_dict"]


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("model", sorted(groups()["model"].keys() - {"custom"}))
def test_a_step_of_each_shipped_net_is_replayed(model, tmp_path):
    result = run(compose([*STEPS, f"model={model}", f"runs_dir={tmp_path}"])).result
    assert result.numerics["cuda_graph"]


@pytest.mark.parametrize(
    "keys",
    [
        "model=lenet5",
        "model=resnet20 precision=32",
        "model=vgg11 model.width=0.125",  # uses dropout
        "model=googlenet ema=0.9",  # uses dropout, with two heads
        "model=lenet5 mixup=0.2 label_smoothing=0.1 clip_grad=0.01",
        "model=resnet20 augment=basic optimizer=momentum",
    ],
)
def test_a_replayed_step_gives_the_same_bits(keys, tmp_path):
    base = [*STEPS, *keys.split(), "deterministic=true", f"runs_dir={tmp_path}"]
    replayed, plain = (run(compose([*base, f"trainer.cuda_graph={graph}"])) for graph in ("true", "false"))
    assert (replayed.result.numerics["cuda_graph"], plain.result.numerics["cuda_graph"]) == (True, False)
    assert_same_bits(weights_of(replayed.directory), weights_of(plain.directory))
    assert replayed.result.metrics == plain.result.metrics


def test_a_net_that_cannot_be_recorded_trains_without_a_graph(tmp_path, monkeypatch):
    monkeypatch.setattr("cnnbench.training.run.can_use_cuda_graph", lambda config: config.trainer.cuda_graph)
    asking = [*STEPS, "model=custom", "model._target_=nets.NoMeta", "deterministic=true", f"runs_dir={tmp_path}"]
    tried, plain = (run(compose([*asking, f"trainer.cuda_graph={graph}"])) for graph in ("true", "false"))
    assert not tried.result.numerics["cuda_graph"]
    assert tried.directory.log.read_text().count("trainer.cuda_graph: continues without a graph, ") == 1
    assert_same_bits(weights_of(tried.directory), weights_of(plain.directory))


def test_a_resumed_run_of_replayed_steps_has_the_same_bits(tmp_path, monkeypatch):
    base = [*STEPS, "model=vgg11", "model.width=0.125", "deterministic=true"]
    whole = run(compose([*base, f"runs_dir={tmp_path / 'whole'}"])).directory
    original = GracefulStop.on_train_batch_end

    def stop(self, trainer, *others):
        if trainer.global_step == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, trainer, *others)

    base.append(f"runs_dir={tmp_path / 'stopped'}")
    monkeypatch.setattr(GracefulStop, "on_train_batch_end", stop)
    with pytest.raises(Interrupted):
        run(compose(base))
    monkeypatch.undo()
    directory = RunDir(next((tmp_path / "stopped").glob("*/*")))
    assert load_checkpoint(directory.last)["global_step"] == 8
    assert run(compose([*base, "resume=auto"])).directory.path == directory.path
    assert_same_bits(weights_of(directory), weights_of(whole))


@pytest.mark.parametrize(
    "keys",
    ["precision=16", "accumulate=2", "compile=true", "log=full", "model=custom model._target_=small_nets.Small"],
)
def test_runs_that_cannot_use_a_graph_train_without(keys, tmp_path):
    result = run(compose([*STEPS, "model=lenet5", *keys.split(), f"runs_dir={tmp_path}"])).result
    assert not result.numerics["cuda_graph"]


def test_replayed_steps_that_diverge_are_reported(tmp_path):
    with pytest.raises(Diverged, match=r"in step \d+, lr"):
        run(compose([*STEPS, "model=lenet5", "epochs=20", "optimizer=sgd", "optimizer.lr=1e30", "scheduler=constant",
                     f"runs_dir={tmp_path}"]))  # fmt: skip


def test_a_plan_measures_replayed_steps_if_the_run_replays_them():
    replayed, plain = (
        measure_job(compose(["model=resnet20", f"trainer.cuda_graph={graph}"]), 12)[0] for graph in ("true", "false")
    )
    assert 0 < replayed < plain


# ---- sweeps ----------------------------------------------------------------------------------------------------------


def test_a_killed_sweep_of_two_slots_on_one_gpu_resumes_with_the_same_bits(tmp_path):
    typed = [*(sys.executable, "-m", "cnnbench", "-m"), "seed=0,1,2,3", "model=lenet5", "deterministic=true", "epochs=6",
             "sweep.slots=2", "name=swept"]  # fmt: skip
    whole, killed = (tmp_path / name for name in ("whole", "killed"))
    whole.mkdir(), killed.mkdir()
    done = subprocess.run(typed, cwd=whole, capture_output=True, text=True, check=True)
    assert "4 jobs, 4 to run, 2 at a time, on GPU 0\n" in done.stdout
    sweep = subprocess.Popen(typed, cwd=killed, start_new_session=True)
    while len(list(killed.glob("runs/*/*/checkpoints/last.ckpt"))) < 2:
        time.sleep(0.05)
        assert sweep.poll() is None
    family = [sweep.pid, *(process.pid for process in psutil.Process(sweep.pid).children(recursive=True))]
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.wait()
    _, left = psutil.wait_procs([psutil.Process(pid) for pid in family if psutil.pid_exists(pid)], 30)
    assert not left
    again = subprocess.run(typed, cwd=killed, capture_output=True, text=True, check=True)
    assert "of them resumed" in again.stdout
    for result in sorted(whole.glob("runs/swept/*/result.json")):
        same = killed / result.relative_to(whole)
        assert json.loads(same.read_text())["metrics"] == json.loads(result.read_text())["metrics"]
        assert_same_bits(weights_of(RunDir(same.parent)), weights_of(RunDir(result.parent)))
