"""Several processes that score a saved run together: `python ranks.py RUN_DIR FIRST STOP RANKS PORT FOLDER`.

The process imports the libraries once and forks for each rank, which writes `FOLDER/rank<number>.json`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

import torch
from pytorch_lightning import Trainer

from cnnbench.config.schema import Config
from cnnbench.data.datamodule import TrainingBatches
from cnnbench.data.loader import BatchPlan
from cnnbench.runs.load_net import load_net
from cnnbench.training.classifier import Classifier
from cnnbench.training.factories import build_data


def main(run_dir: str, first: str, stop: str, ranks: str, port: str, folder: str) -> int:
    """Returns 1 if a rank failed, else 0."""
    torch.set_num_threads(1)
    children = []
    for rank in range(int(ranks)):
        child = os.fork()
        if not child:
            os._exit(run_rank(run_dir, [int(first), int(stop)], rank, int(ranks), port, Path(folder)))
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)


def run_rank(run_dir: str, test_size: list[int], rank: int, ranks: int, port: str, folder: Path) -> int:
    os.environ |= {
        "LOCAL_RANK": str(rank), "RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    try:
        (folder / f"rank{rank}.json").write_text(json.dumps(score(run_dir, test_size, ranks)))
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def score(run_dir: str, test_size: list[int], ranks: int) -> dict:
    """Returns the scores of a run on a range of its test images, with logits and labels of all ranks."""
    config = Config.load(Path(run_dir) / "config.yaml")
    config = config.model_copy(update={"data": config.data.model_copy(update={"test_size": test_size})})
    data = build_data(config)
    data.batches = TrainingBatches(BatchPlan(2, seed=0))
    net, _ = load_net(run_dir)
    classifier = Classifier(net, data.num_classes)
    trainer = Trainer(
        accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto", logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.test(classifier, datamodule=data, verbose=False)
    assert classifier.outputs is not None
    logits, labels = classifier.outputs
    return {**classifier.scores, "logits": logits.tolist(), "labels": labels.tolist()}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
