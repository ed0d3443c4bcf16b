"""On a machine with a GPU: python -m pytest -m gpu."""

import pytest
import torch

from cnnbench.compose import compose
from cnnbench.train import run

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")]


def test_a_gpu_owners_first_run_is_on_the_gpu_in_mixed_precision_with_the_images_there(tmp_path):
    outcome = run(compose([f"runs_dir={tmp_path}", "epochs=3"]))
    frozen = outcome.directory.config.read_text()
    assert outcome.result["precision"] in ("bf16", "16")
    assert "accelerator: gpu" in frozen
    assert "pipeline: device" in frozen
    assert outcome.result["metrics"]["test/acc"] > 0.8


def test_where_the_images_are_kept_changes_no_number(tmp_path):
    base = [f"runs_dir={tmp_path}", "epochs=1", "deterministic=true", "precision=32"]
    device, memory = (
        run(compose([*base, f"data.pipeline={place}"])).result["metrics"] for place in ("device", "memory")
    )
    assert device == pytest.approx(memory, abs=1e-6)


@pytest.mark.parametrize("model", ["alexnet", "vgg11", "googlenet", "resnet18", "resnet20", "lenet5_by_hand"])
def test_a_net_of_each_family_trains_deterministically_in_mixed_precision(model, tiny, tmp_path):
    result = run(compose([*tiny, f"model={model}", f"runs_dir={tmp_path}", "deterministic=true"])).result
    assert result["precision"] in ("bf16", "16")
    assert 0 <= result["metrics"]["test/acc"] <= 1
