"""Which runs may replay a recorded step; that this changes no bit, tests/test_gpu.py shows where there is a GPU."""

import pytest

from cnnbench.config.compose import compose
from cnnbench.training.cuda_graph import suits_cuda_graph

ON_GPU = ["trainer.accelerator=gpu", "precision=bf16"]


@pytest.mark.parametrize(
    "keys", [[], ["precision=32"], ["model=lenet5_by_hand"], ["ema=0.9", "clip_grad=1", "mixup=0.2"]]
)
def test_steps_of_our_nets_on_one_gpu_are_all_alike(keys):
    assert suits_cuda_graph(compose([*ON_GPU, *keys]))


@pytest.mark.parametrize(
    "key",
    [
        "trainer.cuda_graph=false",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "trainer.num_nodes=2",
        "accumulate=2",  # parts add up their gradients
        "precision=16",  # the scale of the loss changes
        "compile=true",
        "log=full",  # looks at the activations of some steps
    ],
)
def test_other_steps_are_not(key):
    assert not suits_cuda_graph(compose([*ON_GPU, key]))


def test_a_net_of_ones_own_may_do_something_else_in_each_step():
    assert not suits_cuda_graph(compose([*ON_GPU, "model=custom", "model._target_=small_nets.Small"]))
