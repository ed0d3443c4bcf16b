"""Several ranks share the images: each image is used once, and the scores equal those of one process."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning import Trainer
from scipy.special import softmax
from torch import nn

from cnnbench.augment.crops import RandomCrop
from cnnbench.augment.step import Augment
from cnnbench.augment.transforms import RandomErasing, RandomHorizontalFlip
from cnnbench.data.loader import BatchPlan, Images, Loader, Normalization
from cnnbench.data.sets.mnist5k import MNIST5k
from cnnbench.training.classifier import Classifier
from ranks import score

HALF = Normalization([0.5], [0.25])
FIRST, STOP = 48, 53  # test images of two classes: the digits are sorted, fifty of each


def numbered(n: int, side: int = 2) -> Images:
    """Images with the labels 0, 1, 2, ... and random pixels."""
    pixels = np.random.default_rng(n).integers(0, 256, (n, 1, side, side), dtype=np.uint8)
    return Images(torch.from_numpy(pixels), torch.arange(n))


def loaders(n: int, ranks: int, batch_size: int, seed: int | None = None, augment=None, side: int = 2) -> list[Loader]:
    """A loader for each rank."""
    images = numbered(n, side)
    return [Loader(images, BatchPlan(batch_size, 1, rank, ranks, seed), HALF, augment=augment) for rank in range(ranks)]


def labels_of(batches) -> list[int]:
    return [int(label) for _, labels in batches for label in labels]


# ---- the stored order ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "ranks"), [(0, 2), (1, 1), (1, 3), (5, 7), (20, 3), (20, 5)])
def test_the_ranks_shares_cover_all_images_in_order_and_differ_by_one_at_most(n, ranks):
    for batch_size in (1, 2, 5, 64):
        shares = [labels_of(loader) for loader in loaders(n, ranks, batch_size)]
        assert list(itertools.chain(*shares)) == list(range(n))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("n", "ranks"), [(0, 2), (1, 1), (5, 7), (20, 3), (20, 7)])
def test_the_length_of_a_share_is_the_number_of_its_batches_and_at_least_one(n, ranks):
    for batch_size in (1, 2, 5, 64):
        for loader in loaders(n, ranks, batch_size):
            assert len(loader) == len(list(loader)) >= 1


def test_a_rank_without_images_gets_one_empty_batch_of_the_images_shape():
    *_, last = loaders(0, 3, 4, side=5)
    ((pixels, labels),) = last
    assert (tuple(pixels.shape), tuple(labels.shape)) == ((0, 1, 5, 5), (0,))


def test_an_image_stays_with_its_label_on_every_rank():
    images = numbered(11)
    for loader in loaders(11, 3, 4):
        for pixels, labels in loader:
            expected = (images.pixels[labels].numpy() / 255 - 0.5) / 0.25
            np.testing.assert_allclose(pixels.numpy(), expected, atol=1e-5)


# ---- shuffled --------------------------------------------------------------------------------------------------------


def joined(parts) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The global batches, joined from the ranks' parts."""
    return [tuple(map(torch.cat, zip(*batch, strict=True))) for batch in zip(*parts, strict=True)]


@pytest.mark.parametrize(("n", "ranks"), [(1, 2), (14, 3), (15, 2), (20, 3), (28, 7), (60, 4), (61, 2)])
def test_the_ranks_parts_of_a_shuffled_batch_form_the_batch_of_one_process(n, ranks):
    batch_size = 14
    for epoch in range(2):
        shared = loaders(n, ranks, batch_size, seed=3)
        (alone,) = loaders(n, 1, batch_size, seed=3)
        for loader in [*shared, alone]:
            loader.seek(epoch)
        parts, whole = [list(loader) for loader in shared], list(alone)
        together = joined(parts)
        assert labels_of(together) == labels_of(whole) == alone.order(epoch).tolist()
        for (x, y), (u, v) in zip(together[: len(together) - 1], whole, strict=False):
            assert torch.equal(x, u)
            assert torch.equal(y, v)
        if n % batch_size == 0 or n % batch_size >= 2 * ranks:
            assert [len(y) for _, y in together] == [len(y) for _, y in whole]


@pytest.mark.slow
@given(n=st.integers(1, 60), ranks=st.integers(1, 7), per_rank=st.integers(1, 5), seed=st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_ranks_have_equally_many_batches_and_sizes_that_differ_by_one_at_most(n, ranks, per_rank, seed):
    parts = [[len(labels) for _, labels in loader] for loader in loaders(n, ranks, ranks * per_rank, seed)]
    assert len({len(sizes) for sizes in parts}) == 1
    assert all(max(sizes) - min(sizes) <= 1 for sizes in zip(*parts, strict=True))
    assert sum(map(sum, parts)) == n


@pytest.mark.slow
@given(n=st.integers(2, 60), ranks=st.integers(1, 7), per_rank=st.integers(2, 5))
@settings(max_examples=100, deadline=None)
def test_no_rank_trains_on_a_single_image_if_there_are_two_for_each(n, ranks, per_rank):
    if n < 2 * ranks:
        return
    for loader in loaders(n, ranks, ranks * per_rank, seed=0):
        assert min(len(labels) for _, labels in loader) >= 2


def test_an_image_is_augmented_equally_on_one_rank_and_on_several():
    steps = Augment(
        {"crop": RandomCrop(2, image_size=12), "flip": RandomHorizontalFlip(), "erase": RandomErasing(mean=[0.5])}
    )
    (alone,) = loaders(50, 1, 12, 5, steps, side=12)
    for ranks in (2, 3, 4):
        together = joined([list(loader) for loader in loaders(50, ranks, 12, 5, steps, side=12)])
        alone.seek(0)
        for (x, y), (u, v) in zip(together[:-1], alone, strict=False):
            assert torch.equal(x, u)
            assert torch.equal(y, v)


def test_a_resumed_rank_continues_with_its_next_part():
    for rank, loader in enumerate(loaders(50, 3, 12, 5)):
        whole = list(loader)
        resumed = loaders(50, 3, 12, 5)[rank]
        resumed.seek(0, 2)
        assert labels_of(resumed) == labels_of(whole[2:])


# ---- scoring ---------------------------------------------------------------------------------------------------------


class Losing(Loader):
    """A loader that omits its last batch."""

    def __iter__(self):
        yield from itertools.islice(super().__iter__(), len(self) - 1)

    def __len__(self):
        return super().__len__()


class Repeating(Loader):
    """A loader that repeats its first batch, as padding samplers do."""

    def __iter__(self):
        batches = [batch for batch in super().__iter__() if len(batch[1])]
        yield from batches + batches[:1]

    def __len__(self):
        return super().__len__() + 1


@pytest.mark.parametrize("stage", ["test", "validate"])
@pytest.mark.parametrize(("kind", "scored"), [(Losing, 4), (Repeating, 8)])
def test_scoring_too_few_or_too_many_images_is_an_error(kind, scored, stage, tmp_path):
    images = Images(torch.zeros(6, 1, 2, 2, dtype=torch.uint8), torch.arange(6) % 3)
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), 3)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    what = {"test": "test", "validate": "validation"}[stage]
    with pytest.raises(RuntimeError, match=f"^{what}: {scored} images were scored, expected 6$"):
        getattr(trainer, stage)(
            classifier, dataloaders=kind(images, BatchPlan(2), Normalization([0.5], [0.5])), verbose=False
        )


class Given(nn.Module):
    """A net whose logits are the first three pixels of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x.flatten(1)[:, :3] + 0 * self.unused


def test_the_calibration_error_does_not_depend_on_the_batch_size(tmp_path):
    pixels = torch.tensor([[230, 30, 50, 0], [80, 200, 30, 0], [50, 80, 180, 0], [255, 0, 0, 0]], dtype=torch.uint8)
    images = Images(pixels.view(4, 1, 2, 2), torch.tensor([0, 1, 2, 1]))
    found = []
    for batch_size in (1, 2, 4):
        classifier = Classifier(Given(), 3)
        trainer = Trainer(
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            default_root_dir=tmp_path,
        )
        trainer.test(
            classifier, dataloaders=Loader(images, BatchPlan(batch_size), Normalization([0.0], [0.95])), verbose=False
        )
        found.append(classifier.scores["ece"])
    probabilities = softmax(pixels[:, :3].double().numpy() / 255 / 0.95, axis=1)
    right = probabilities.argmax(1) == images.labels.numpy()
    bins = (probabilities.max(1) * 15).astype(int)
    gaps = [abs(right[bins == at].mean() - probabilities.max(1)[bins == at].mean()) for at in bins]
    assert found == pytest.approx([np.mean(gaps)] * 3, abs=1e-6)


# ---- processes -------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def scored_together(run_dir: Path, ranks: int, folder: Path) -> list[dict]:
    """The scores of the same test in each of several processes."""
    script = Path(__file__).parents[1] / "ranks.py"
    done = subprocess.run(
        [sys.executable, str(script), *map(str, (run_dir, FIRST, STOP, ranks, free_port(), folder))],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(ranks)]


@pytest.fixture(scope="module")
def alone(finished) -> dict:
    return score(str(finished.path), [FIRST, STOP], 1)


@pytest.mark.slow
def test_one_process_scores_the_images_in_their_stored_order(alone, finished):
    saved = np.load(finished.predictions)
    assert alone["labels"] == saved["targets"][FIRST:STOP].tolist() == [0, 0, 1, 1, 1]
    assert alone["labels"] == MNIST5k().read("test").labels[FIRST:STOP].tolist()
    np.testing.assert_allclose(alone["logits"], saved["logits"][FIRST:STOP], atol=1e-5)
    assert (alone["n"], sum(map(sum, alone["confusion"]))) == (5, 5)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [3, pytest.param(7, marks=pytest.mark.soak)])
def test_several_processes_score_as_one_does(alone, finished, tmp_path, ranks):
    for together in scored_together(finished.path, ranks, tmp_path):
        for key in ("n", "acc", "confusion", "labels"):
            assert together[key] == alone[key], key
        assert together["per_class"] == pytest.approx(alone["per_class"])
        assert together["ece"] == pytest.approx(alone["ece"], abs=1e-6)
        assert together["loss"] == pytest.approx(alone["loss"], abs=1e-6)
        np.testing.assert_allclose(together["logits"], alone["logits"], rtol=1e-6, atol=1e-6)
