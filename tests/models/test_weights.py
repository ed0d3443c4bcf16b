"""Weights are copied between nets with the same layers completely, or not at all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cnnbench.models.weights import copy_weights


class Ours(nn.Module):
    """Names that no nn.Sequential has."""

    def __init__(self, channels: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, channels, 3)
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.stem(x)).mean((2, 3)))


class Theirs(nn.Sequential):
    """The same layers, by number."""

    def __init__(self, channels: int = 4, classes: int = 3, kernel: int = 3) -> None:
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(nn.Conv2d(2, channels, kernel), nn.BatchNorm2d(channels), pool, nn.Linear(channels, classes))


def made(make, seed: int, **knobs) -> nn.Module:
    """A net whose running statistics two batches have changed."""
    torch.manual_seed(seed)
    net = make(**knobs)
    for _ in range(2):
        net(torch.randn(5, 2, 6, 6))
    return net


def values(net: nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in net.state_dict().values()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def refusal(source: nn.Module, target: nn.Module) -> str:
    """The message, after which neither net may have changed."""
    before = values(source), values(target)
    with pytest.raises(ValueError, match=r"\S") as caught:
        copy_weights(source, target)
    assert same(values(source), before[0])
    assert same(values(target), before[1])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_are_copied_in_the_order_of_layers_under_any_names():
    source, target = made(Theirs, 1), made(Ours, 2)
    copy_weights(source, target)
    assert not set(source.state_dict()) & set(target.state_dict())
    assert same(values(target), values(source))


def test_a_net_with_copied_weights_gives_the_same_logits():
    source, target = made(Theirs, 1).eval(), made(Ours, 2).eval()
    images = torch.randn(3, 2, 6, 6)
    assert not torch.allclose(target(images), source(images))
    copy_weights(source, target)
    torch.testing.assert_close(target(images), source(images))


def test_running_statistics_and_their_count_of_batches_are_copied():
    source, target = made(Theirs, 1), Ours()
    assert source[1].num_batches_tracked == 2
    copy_weights(source, target)
    assert torch.equal(target.norm.running_mean, source[1].running_mean)
    assert torch.equal(target.norm.running_var, source[1].running_var)
    assert target.norm.num_batches_tracked == 2


def test_the_source_is_not_changed():
    source = made(Theirs, 1)
    before = values(source)
    copy_weights(source, made(Ours, 2))
    assert same(values(source), before)


def test_later_changes_of_the_source_do_not_change_the_target():
    source, target = made(Ours, 1), made(Ours, 2)
    copy_weights(source, target)
    before = values(target)
    with torch.no_grad():
        for value in source.state_dict().values():
            value.add_(1)
    assert same(values(target), before)
    assert not same(values(target), values(source))


def test_the_parameters_of_the_target_stay_the_same_objects():
    source, target = made(Theirs, 1), made(Ours, 2)
    before = list(target.parameters())
    copy_weights(source, target)
    assert all(now is then for now, then in zip(target.parameters(), before, strict=True))
    assert all(parameter.requires_grad for parameter in target.parameters())


def test_a_net_can_be_copied_to_itself():
    net = made(Ours, 1)
    before = values(net)
    copy_weights(net, net)
    assert same(values(net), before)


def test_the_first_layer_that_differs_is_named_with_both_shapes():
    assert (
        refusal(made(Theirs, 1, kernel=5), made(Ours, 2))
        == "0.weight 4×2×5×5 of Theirs does not match stem.weight 4×2×3×3 of Ours"
    )


def test_a_difference_in_the_last_layer_leaves_all_others_uncopied():
    assert (
        refusal(made(Theirs, 1, classes=7), made(Ours, 2))
        == "3.weight 7×4 of Theirs does not match head.weight 3×4 of Ours"
    )


def test_as_many_numbers_in_another_shape_do_not_fit():
    source, target = nn.Sequential(nn.Linear(2, 6, bias=False)), nn.Sequential(nn.Linear(6, 2, bias=False))
    assert refusal(source, target) == "0.weight 6×2 of Sequential does not match 0.weight 2×6 of Sequential"


def test_a_shape_that_torch_would_stretch_does_not_fit():
    source, target = nn.Sequential(nn.BatchNorm2d(1)), nn.Sequential(nn.BatchNorm2d(4))
    assert refusal(source, target) == "0.weight 1 of Sequential does not match 0.weight 4 of Sequential"


def test_a_bias_does_not_go_where_a_running_mean_is_wanted():
    source = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    target = nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4))
    assert refusal(source, target) == "0.bias 4 of Sequential does not match 1.weight 4 of Sequential"


def test_a_norm_that_keeps_no_statistics_does_not_fit_one_that_does():
    source = nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False), nn.Linear(4, 4))
    target = nn.Sequential(nn.BatchNorm2d(4), nn.Linear(4, 4))
    assert refusal(source, target) == "1.weight 4×4 of Sequential does not match 0.running_mean 4 of Sequential"


def test_a_count_of_batches_is_called_one_number():
    source, target = nn.Sequential(nn.BatchNorm2d(4)), nn.Sequential(nn.BatchNorm2d(4), nn.Linear(4, 4))
    target[0].num_batches_tracked = None
    expected = "0.num_batches_tracked (one number) of Sequential does not match 1.weight 4×4 of Sequential"
    assert refusal(source, target) == expected


def test_a_source_with_layers_left_over_is_refused_with_the_first_of_them():
    source = made(Theirs, 1)
    source.append(nn.Linear(3, 3))
    assert refusal(source, made(Ours, 2)) == "Theirs has 2 tensors more, from 4.weight on"


def test_a_target_with_layers_left_over_is_refused_with_the_first_of_them():
    source, target = made(Theirs, 1), made(Ours, 2)
    target.extra = nn.Linear(3, 3, bias=False)
    assert refusal(source, target) == "Ours has 1 tensors more, from extra.weight on"


@pytest.mark.parametrize("order", [1, -1])
def test_a_net_without_weights_does_not_fit_one_that_has_some(order):
    nets = [nn.Flatten(), nn.Linear(2, 2)][::order]
    assert refusal(*nets) == "Linear has 2 tensors more, from weight on"
