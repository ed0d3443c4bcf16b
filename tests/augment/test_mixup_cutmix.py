"""MixUp and CutMix against torchvision's and the formula; a batch gives the same in any division into parts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms import v2

from cnnbench.augment.crops import RandomCrop
from cnnbench.augment.mixup_cutmix import MixUpCutMix
from cnnbench.augment.step import Augment
from cnnbench.augment.transforms import RandomErasing, RandomHorizontalFlip
from cnnbench.config.compose import compose
from cnnbench.data.loader import BatchPlan, Images, Loader, Normalization
from cnnbench.training.factories import build_data

CLASSES = 5
IMPOSSIBLE = 1e-6  # a fair test fails no more often
KINDS = [(0.2, 0.0), (0.0, 1.0), (0.3, 2.0)]


def pictures(n: int, side: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images and labels."""
    torch.manual_seed(n)
    return torch.randn(n, 2, side, side), torch.randint(CLASSES, (n,))


def mixed(mixing: MixUpCutMix, x: torch.Tensor, y: torch.Tensor, seed: int = 0, epoch: int = 0, batch: int = 0):
    """A whole batch, mixed: before its first image comes its last one."""
    return mixing(torch.cat([x[-1:], x]), torch.cat([y[-1:], y]), seed, epoch, batch)


def shares_of(mixing: MixUpCutMix, batches: int) -> np.ndarray:
    """The share that an image of each batch keeps of itself."""
    x, y = torch.zeros(2, 1, 8, 8), torch.tensor([0, 1])
    return np.array([mixed(mixing, x, y, seed=7, batch=batch)[1][0, 0] for batch in range(batches)])


# ---- one batch -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mixup", "cutmix", "n"), [(*KINDS[0], 1), (*KINDS[1], 2), (*KINDS[2], 3), (*KINDS[2], 16)])
def test_a_batch_is_mixed_as_torchvision_mixes_it_with_the_same_seed(mixup, cutmix, n):
    x, y = pictures(n, 32)
    kinds = [v2.MixUp(alpha=mixup, num_classes=CLASSES)] if mixup else []
    kinds += [v2.CutMix(alpha=cutmix, num_classes=CLASSES)] if cutmix else []
    for batch in range(10):
        images, shares = mixed(MixUpCutMix(mixup, cutmix, CLASSES), x, y, 3, 2, batch)
        torch.manual_seed(int(np.random.SeedSequence([3, 2, batch]).generate_state(1, np.uint64)[0] >> np.uint64(1)))
        theirs = v2.RandomChoice(kinds)(x, y)
        assert torch.equal(images, theirs[0])
        assert torch.equal(shares, theirs[1])


def test_mixup_blends_each_image_with_the_one_before_it_by_the_share_of_its_label():
    x, _ = pictures(CLASSES)
    y = torch.arange(CLASSES)
    for batch in range(20):
        images, shares = mixed(MixUpCutMix(0.5, 0, CLASSES), x, y, batch=batch)
        for k in range(CLASSES):
            own = shares[k, k].item()
            torch.testing.assert_close(images[k], own * x[k] + (1 - own) * x[k - 1])
            assert shares[k, k - 1].item() == pytest.approx(1 - own, abs=1e-6)


def test_cutmix_pastes_a_box_of_the_image_before_and_shares_the_label_by_its_pixels():
    side = 10
    x = torch.arange(CLASSES).float().view(-1, 1, 1, 1).expand(CLASSES, 1, side, side)
    y = torch.arange(CLASSES)
    areas = set()
    for batch in range(40):
        images, shares = mixed(MixUpCutMix(0, 1.0, CLASSES), x, y, batch=batch)
        for k in range(CLASSES):
            pasted = images[k, 0] == (k - 1) % CLASSES
            assert (pasted ^ (images[k, 0] == k)).all()
            rows, columns = pasted.any(1).nonzero().flatten(), pasted.any(0).nonzero().flatten()
            box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1) if len(rows) else 0
            assert pasted.sum() == box  # all of the box, and nothing outside of it
            assert shares[k, k].item() == pytest.approx(1 - int(pasted.sum()) / side**2, abs=1e-6)
            areas.add(int(pasted.sum()))
    assert len(areas) > 10


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
    at=st.tuples(*[st.integers(0, 99)] * 2),
)
def test_the_shares_of_the_classes_are_not_negative_and_sum_to_one(kind, n, seed, at):
    x, y = pictures(n)
    _, shares = mixed(MixUpCutMix(*kind, CLASSES), x, y, seed, *at)
    assert shares.shape == (n, CLASSES)
    assert shares.dtype == torch.float32
    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(n))
    assert ((shares > 0).sum(1) <= 2).all()


def test_two_images_of_one_class_keep_that_class():
    _, shares = mixed(MixUpCutMix(0.5, 0, CLASSES), torch.zeros(3, 1, 2, 2), torch.full((3,), 4))
    torch.testing.assert_close(shares, torch.eye(CLASSES)[[4, 4, 4]])


# ---- what is drawn ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_share_of_an_image_is_drawn_from_the_beta_distribution(alpha):
    shares = shares_of(MixUpCutMix(alpha, 0, CLASSES), 500)
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > IMPOSSIBLE


def test_the_area_of_a_box_is_that_of_torchvision():
    ours = 1 - shares_of(MixUpCutMix(0, 1.0, CLASSES), 500)
    torch.manual_seed(1)
    theirs = [v2.CutMix(num_classes=2)(torch.zeros(2, 1, 8, 8), torch.arange(2))[1][0, 1].item() for _ in range(500)]
    assert stats.ks_2samp(ours, theirs).pvalue > IMPOSSIBLE


def test_with_mixup_and_cutmix_each_is_used_for_half_of_the_batches():
    mixing, n = MixUpCutMix(1.0, 1.0, CLASSES), 400
    x, y = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8), torch.arange(2)
    blended = sum(0 < mixed(mixing, x, y, batch=batch)[0][0, 0, 0, 0] < 1 for batch in range(n))
    assert stats.binomtest(int(blended), n, 0.5).pvalue > IMPOSSIBLE


def test_one_share_is_drawn_for_all_images_of_a_batch():
    _, shares = mixed(MixUpCutMix(1.0, 0, CLASSES), torch.zeros(CLASSES, 1, 2, 2), torch.arange(CLASSES))
    assert len({float(share) for share in shares.diagonal()}) == 1


def test_draws_differ_by_seed_epoch_and_batch():
    x, y = torch.zeros(2, 1, 2, 2), torch.arange(2)
    mixing = MixUpCutMix(1.0, 0, CLASSES)
    found = {mixed(mixing, x, y, *at)[1][0, 0].item() for at in itertools.product(range(4), repeat=3)}
    assert len(found) == 64


def test_draws_depend_only_on_seed_epoch_and_batch():
    x, y = pictures(6)
    mixing = MixUpCutMix(0.5, 0.5, CLASSES)
    first = mixed(mixing, x, y, 1, 2, 3)
    for _ in range(5):
        mixed(mixing, x, y, 9, 9, 9)
    torch.manual_seed(5)
    for again in (mixed(mixing, x, y, 1, 2, 3), mixed(MixUpCutMix(0.5, 0.5, CLASSES), x, y, 1, 2, 3)):
        assert torch.equal(again[0], first[0])
        assert torch.equal(again[1], first[1])


def test_mixing_does_not_use_the_random_generators_of_dropout(monkeypatch):
    def reseeds(seed):
        raise AssertionError("the GPU's generator is seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", reseeds)
    before = torch.random.get_rng_state()
    mixed(MixUpCutMix(0.5, 0.5, CLASSES), torch.zeros(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64))
    assert torch.equal(torch.random.get_rng_state(), before)


# ---- the loader ------------------------------------------------------------------------------------------------------

STEPS = {"crop": RandomCrop(2, image_size=8), "flip": RandomHorizontalFlip(), "erase": RandomErasing(mean=[0.5])}


def loader(n: int, mixing: MixUpCutMix | None, batch_size: int = 12, augment: bool = False, **parts: int) -> Loader:
    pixels = np.random.default_rng(n).integers(0, 256, (n, 1, 8, 8), dtype=np.uint8)
    images = Images(torch.from_numpy(pixels), torch.arange(n) % CLASSES)
    steps = Augment(STEPS) if augment else None
    return Loader(
        images, BatchPlan(batch_size, seed=3, **parts), Normalization([0.5], [0.25]), augment=steps, mixing=mixing
    )


def joined(
    n: int, mixing: MixUpCutMix, ranks: int, accumulate: int, augment: bool
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The whole batches of a pass that is shared by ranks, in parts."""
    shared = [
        list(loader(n, mixing, augment=augment, rank=rank, world_size=ranks, accumulate=accumulate))
        for rank in range(ranks)
    ]
    parts = [part for same in zip(*shared, strict=True) for part in same]  # as they follow one another in a batch
    size = ranks * accumulate
    return [tuple(map(torch.cat, zip(*parts[at : at + size], strict=True))) for at in range(0, len(parts), size)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_shuffled_batch_is_normalised_and_then_mixed(kind):
    mixing, plain = MixUpCutMix(*kind, CLASSES), list(loader(30, None))
    for batch, (images, shares) in enumerate(loader(30, mixing)):
        expected = mixed(mixing, *plain[batch], 3, 0, batch)
        assert torch.equal(images, expected[0])
        assert torch.equal(shares, expected[1])


@pytest.mark.parametrize(
    ("n", "ranks", "accumulate", "kind", "augment"),
    [
        (36, 1, 2, KINDS[0], False),
        (47, 1, 3, KINDS[1], False),
        (36, 1, 12, KINDS[2], True),
        (47, 3, 1, KINDS[0], False),
        (47, 2, 3, KINDS[2], True),
        (36, 3, 4, KINDS[1], False),
    ],
)
def test_the_parts_of_a_mixed_batch_together_are_the_mixed_batch(n, ranks, accumulate, kind, augment):
    mixing = MixUpCutMix(*kind, CLASSES)
    whole = list(loader(n, mixing, augment=augment))
    together = joined(n, mixing, ranks, accumulate, augment)
    comparable = len(whole) if len(whole) == len(together) else len(together) - 1  # a short last batch may have joined
    assert comparable >= 2
    for one, other in zip(whole[:comparable], together[:comparable], strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_a_part_of_one_image_is_mixed_with_the_image_before_it():
    mixing = MixUpCutMix(1.0, 0, CLASSES)
    whole = next(iter(loader(24, mixing)))
    parts = itertools.islice(loader(24, mixing, accumulate=12), 12)
    for number, (images, shares) in enumerate(parts):
        assert torch.equal(images[0], whole[0][number])
        assert torch.equal(shares[0], whole[1][number])


@pytest.mark.parametrize("accumulate", [1, 3])
def test_after_seek_the_next_mixed_part_follows(accumulate):
    def fresh():
        return loader(50, MixUpCutMix(0.5, 0.5, CLASSES), augment=True, accumulate=accumulate)

    passes = fresh()
    list(passes)
    second = list(passes)
    resumed = fresh()
    resumed.seek(1, 2)
    rest = list(resumed)
    assert len(rest) == len(second) - 2
    for one, other in zip(rest, second[2:], strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_another_epoch_is_mixed_differently():
    twice = loader(24, MixUpCutMix(1.0, 0, CLASSES))
    first, second = ([sorted(shares.unique().tolist()) for _, shares in twice] for _ in range(2))
    assert first[0] != second[0]
    assert first[1] != second[1]


def test_only_training_images_are_mixed():
    sizes = ["data.train_size=40", "data.val_size=20", "data.test_size=20", "data.image_size=8"]
    data = build_data(compose(["data=synthetic", *sizes, "mixup=0.5", "cutmix=0.5", "model=simplecnn"]))
    for stage in ("fit", "test"):
        data.setup(stage)
    for split in ("val", "test"):
        images, labels = next(iter(data.loader(split)))
        torch.testing.assert_close(images, (data.images[split].pixels / 255 - 0.5) / 0.25)
        assert torch.equal(labels, data.images[split].labels)
    assert next(iter(data.train_dataloader()))[1].shape == (40, 10)
