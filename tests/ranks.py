"""One of several processes that score a saved run together: `python ranks.py RUN_DIR FIRST STOP RANK RANKS PORT OUT`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main(run_dir: str, first: str, stop: str, rank: str, ranks: str, port: str, out: str) -> None:
    os.environ |= {
        "LOCAL_RANK": rank, "RANK": rank, "NODE_RANK": "0", "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    import torch

    torch.set_num_threads(1)
    Path(out).write_text(json.dumps(score(run_dir, [int(first), int(stop)], int(ranks))))


def score(run_dir: str, test_size: list[int], ranks: int) -> dict:
    """The scores of a run on a range of its test images, and this process's logits and labels of them."""
    from pytorch_lightning import Trainer

    from cnnbench.classifier import Classifier
    from cnnbench.config import Config
    from cnnbench.prepare import build_data
    from cnnbench.restore import load_net

    config = Config.load(Path(run_dir) / "config.yaml")
    config = config.model_copy(update={"data": config.data.model_copy(update={"test_size": test_size})})
    data = build_data(config)
    data.batch_size = 2
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
    main(*sys.argv[1:])
