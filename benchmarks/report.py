"""Times the report of 300 fabricated runs of 50 epochs, each with its predictions for 10,000 images.

    python benchmarks/report.py [cells] [seeds]

Prints the seconds that `report` takes, the size of its page, and the seconds until the first line
of `report`, `report --text` and `status`.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from cnnbench.config.compose import compose

IMAGES, CLASSES, EPOCHS = 10_000, 10, 50


def make(folder: Path, cells: int, seeds: int) -> None:
    """Makes a sweep over learning rates, with configs and results in the form of real runs."""
    rng, dice = np.random.default_rng(0), random.Random(0)
    targets = rng.integers(0, CLASSES, IMAGES)
    config = compose([]).as_dict()
    jobs = []
    for cell in range(cells):
        logits = rng.normal(0, 1, (IMAGES, CLASSES)).astype(np.float32) + 3 * np.eye(CLASSES, dtype=np.float32)[targets]
        for seed in range(seeds):
            setting = {"optimizer.lr": round(0.001 * (cell + 1), 4), "seed": seed}
            name = f"lr{cell}_seed{seed}_{cell * seeds + seed:08x}"
            path = folder / name
            path.mkdir(parents=True)
            own = {**config, "seed": seed, "optimizer": {**config["optimizer"], "lr": setting["optimizer.lr"]}}
            (path / "config.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
            (path / "status.json").write_text('{"state": "done"}')
            noisy = logits + 0.3 * rng.normal(0, 1, logits.shape).astype(np.float32)
            (path / "result.json").write_text(json.dumps(result(float((noisy.argmax(1) == targets).mean()), dice)))
            (path / "metrics.csv").write_text(epochs(dice))
            np.savez_compressed(path / "predictions.npz", logits=noisy, targets=targets)
            worst = rng.choice(IMAGES, 64, replace=False)
            np.savez_compressed(
                path / "mistakes.npz", index=worst, images=rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
            )
            jobs.append({"directory": name, "identity": name[-8:], "setting": setting, "facts": {}})
    record = {
        "schema": 1,
        "name": folder.name,
        "question": "Which rate?",
        "keys": ["optimizer.lr", "seed"],
        "fixed": {},
    }
    (folder / "sweep.json").write_text(json.dumps({**record, "command": "cnnbench -m", "slots": 2, "jobs": jobs}))


def result(accuracy: float, dice: random.Random) -> dict[str, object]:
    """The result.json of a run."""
    return {
        "schema": 1, "status": "done", "metrics": {"test/acc": accuracy, "best/val/acc": accuracy}, "best_epoch": EPOCHS,
        "n": {"train": 50_000, "val": 5_000, "test": IMAGES}, "label_hash": "a", "params": 61_706, "macs": 416_520,
        "time": {"fit_s": dice.uniform(100, 200)}, "samples_per_s": 3000.0, "code": "a", "versions": {"torch": "2.6"},
    }  # fmt: skip


def epochs(dice: random.Random) -> str:
    """The metrics.csv of a run."""
    lines = ["epoch,step,train/loss,train/acc,val/loss,val/acc,lr,epoch_s,samples_per_s"]
    for epoch in range(1, EPOCHS + 1):
        loss = 2 / epoch + dice.random() / 10
        lines.append(
            f"{epoch},{epoch * 100},{loss},{1 - loss / 3},{1.1 * loss},{1 - loss / 2.8},0.1,{1 + dice.random()},3000.5"
        )
    return "\n".join(lines) + "\n"


def timed(*arguments: str) -> tuple[float, float]:
    """Seconds until a command's first line, and until its end."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "cnnbench", *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    first = time.perf_counter() - begun
    process.stdout.read()
    if process.wait():
        raise SystemExit(f"{arguments} failed")
    return first, time.perf_counter() - begun


def main() -> None:
    cells, seeds = map(int, sys.argv[1:]) if len(sys.argv) == 3 else (60, 5)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "made"
        make(folder, cells, seeds)
        timed("status", str(folder))  # imports are compiled, files are in memory
        first, whole = timed("report", str(folder))
        size = (folder / "report.html").stat().st_size / 1e6
        print(f"report of {cells * seeds} runs: {whole:.1f} s, first line after {first:.2f} s; page {size:.1f} MB")
        for command in (["report", "--text"], ["status"]):
            first, whole = timed(*command, str(folder))
            print(f"{' '.join(command)}: first line after {first:.2f} s, all after {whole:.2f} s")


if __name__ == "__main__":
    main()
