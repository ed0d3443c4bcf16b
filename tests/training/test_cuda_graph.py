"""Which runs can replay a recorded step. test_gpu.py tests that replaying changes no bit."""

import pytest

from cnnbench.config.compose import compose
from cnnbench.training.cuda_graph import can_use_cuda_graph

ON_GPU = ["trainer.accelerator=gpu", "precision=bf16"]


@pytest.mark.parametrize(
    "keys", [[], ["precision=32"], ["model=lenet5_by_hand"], ["ema=0.9", "clip_grad=1", "mixup=0.2"]]
)
def test_shipped_nets_on_one_gpu_can_use_a_cuda_graph(keys):
    assert can_use_cuda_graph(compose([*ON_GPU, *keys]))


@pytest.mark.parametrize(
    "key",
    [
        "trainer.cuda_graph=false",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "trainer.num_nodes=2",
        "accumulate=2",  # parts accumulate gradients
        "precision=16",  # the scale of the loss changes
        "compile=true",
        "log=full",  # hooks record the activations of some steps
    ],
)
def test_steps_that_differ_cannot_use_a_cuda_graph(key):
    assert not can_use_cuda_graph(compose([*ON_GPU, key]))


def test_a_users_net_cannot_use_a_cuda_graph():
    assert not can_use_cuda_graph(compose([*ON_GPU, "model=custom", "model._target_=small_nets.Small"]))
