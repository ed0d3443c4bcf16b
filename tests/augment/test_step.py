"""The random streams of augmentation steps, and loaders with augmentation."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

from augmenting import GREY, RANDOM, STEPS, changed, every_random_step, every_step, pictures, same
from cnnbench.augment.crops import RandomCrop
from cnnbench.augment.step import Augment
from cnnbench.augment.transforms import RandomHorizontalFlip
from cnnbench.data.loader import BatchPlan, Images, Loader, Normalization


@every_step
def test_a_batch_is_a_function_of_seed_epoch_and_number(name):
    images = pictures(16)
    first = changed(name, images, seed=5, epoch=3, batch=2)
    changed(name, images, seed=6)
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(changed(name, images, seed=5, epoch=3, batch=2), first)


@every_random_step
def test_another_seed_epoch_or_batch_gives_another_change(name):
    images = pictures(16)
    for other in ({"seed": 1}, {"epoch": 1}, {"batch": 1}, {"seed": 2**32 - 1}, {"epoch": 10**6}):
        assert not torch.equal(changed(name, images, **other), changed(name, images))


@every_random_step
def test_seed_epoch_and_batch_are_not_interchangeable(name):
    images = pictures(16)
    results = [changed(name, images, *numbers) for numbers in set(itertools.permutations([0, 0, 1]))]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(results, 2))


@every_step
def test_steps_do_not_use_the_global_random_generators(name):
    def states():
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()

    before = states()
    changed(name, pictures(4))
    assert states() == before


@pytest.mark.parametrize(
    ("first", "second"),
    [("crop", "flip"), ("flip", "crop"), ("flip", "rotate"), ("rotate", "erase"), ("contrast", "crop")],
)
def test_a_step_draws_the_same_after_another_step(first, second):
    images = pictures(10)
    both = changed({first: STEPS[first], second: STEPS[second]}, images, 4, 1, 9)
    assert torch.equal(both, changed(second, changed(first, images, 4, 1, 9), 4, 1, 9))


def test_a_step_under_another_name_draws_other_numbers():
    images = pictures(32)
    flip = RandomHorizontalFlip()
    assert not torch.equal(changed({"flip": flip}, images), changed({"mirror": flip}, images))


def parts(n: int, ranks: int) -> list[slice]:
    return [slice(n * rank // ranks, n * (rank + 1) // ranks) for rank in range(ranks)]


@every_step
def test_the_parts_of_a_batch_are_changed_like_the_whole_batch(name):
    images, augment = pictures(17), Augment({name: STEPS[name]})
    whole = augment(images, 1, 2, 3, slice(0, 17), 17)
    for ranks in (2, 3, 16):
        shares = [augment(images[part], 1, 2, 3, part, 17) for part in parts(17, ranks)]
        torch.testing.assert_close(torch.cat(shares), whole, rtol=0, atol=1e-3)


SEVERAL = {name: RANDOM[name] for name in ("crop", "flip", "rotate", "erase", "brightness")}


def loader(n: int = 50, batch_size: int = 8, augment: Augment | None = None, **keys) -> Loader:
    images = Images(pictures(n), torch.arange(n))
    plan = BatchPlan(batch_size, **{"seed": 3} | keys)
    return Loader(images, plan, Normalization(GREY, [0.25] * 3), augment=augment or Augment(SEVERAL))


@pytest.mark.parametrize(("n", "ranks"), [(48, 2), (54, 2), (48, 3), (54, 3)])
def test_all_ranks_together_get_the_batches_of_one_process(n, ranks):
    whole, shares = loader(n), [loader(n, rank=rank, world_size=ranks) for rank in range(ranks)]
    for _ in range(2):
        of_each = zip(*(list(share) for share in shares), strict=True)
        together = [tuple(map(torch.cat, zip(*batch, strict=True))) for batch in of_each]
        assert same(together, list(whole), atol=1e-4)


@pytest.mark.parametrize(("epoch", "batch"), [(0, 0), (0, 1), (2, 0), (2, 6)])
def test_after_seek_an_augmented_pass_continues_with_the_next_batch(epoch, batch):
    whole = loader()
    passes = [list(whole) for _ in range(epoch + 2)]
    resumed = loader()
    resumed.seek(epoch, batch)
    assert same(list(resumed), passes[epoch][batch:])
    assert same(list(resumed), passes[epoch + 1])


@pytest.mark.parametrize("ranks", [1, 2])
def test_every_batch_of_every_pass_has_its_epoch_and_number(ranks):
    calls = []

    class Spy(Augment):
        def __call__(self, images, seed, epoch, batch, share, n):
            calls.append((seed, epoch, batch, len(share), n))
            return images

    watched = loader(20, 8, augment=Spy({}), seed=11, world_size=ranks)
    list(watched), list(watched)
    sizes = [(0, 8), (1, 8), (2, 4)]
    assert calls == [(11, epoch, number, n // ranks, n) for epoch in (0, 1) for number, n in sizes]


def test_each_pass_changes_an_image_differently():
    augmented = loader(batch_size=50)
    (first, labels), (second, others) = next(iter(augmented)), next(iter(augmented))
    unchanged = (first[labels.argsort()] == second[others.argsort()]).flatten(1).all(dim=1)
    assert unchanged.sum() == 0


def test_the_augmentation_changes_neither_the_order_nor_the_labels():
    augmented, plain = loader(), loader(augment=Augment({}))
    for _ in range(2):
        for (_, labels), (_, expected) in zip(augmented, plain, strict=True):
            assert torch.equal(labels, expected)


def test_an_augmented_image_stays_with_its_label():
    images = Images(torch.arange(200, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 40, 40), torch.arange(200))
    augment = Augment({"flip": RandomHorizontalFlip(), "crop": RandomCrop(image_size=32)})
    for batch, labels in Loader(images, BatchPlan(16, seed=1), Normalization([0.0] * 3, [1.0] * 3), augment=augment):
        torch.testing.assert_close(batch[:, 0, 5, 5] * 255, labels.float())


def test_an_augmented_pass_does_not_modify_the_stored_images():
    augmented = loader()
    before = augmented.images.source.clone()
    list(augmented)
    assert torch.equal(augmented.images.source, before)


def test_images_that_are_not_shuffled_are_not_augmented():
    assert same(list(loader(seed=None)), list(loader(seed=None, augment=Augment({}))))
