"""On a machine with a GPU: python -m pytest -m gpu."""

import pytest
import torch

from cnnbench.compose import compose, conf_dir
from cnnbench.data.store import Images, Loader
from cnnbench.prepare import build_augment
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
        next(iter(Loader(held, 64, [0.5] * 3, [0.25] * 3, device, shuffle_seed=0, augment=steps)))
        for held, device in ((images, torch.device("cpu")), (images, on_gpu), (images.to(on_gpu), on_gpu))
    ]
    for x, y in batches[1:]:
        assert x.is_cuda
        assert torch.equal(y.cpu(), batches[0][1])
        torch.testing.assert_close(x.cpu(), batches[0][0], rtol=0, atol=2e-3)
