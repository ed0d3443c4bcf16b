"""Names of the metrics in a run's result."""

from __future__ import annotations

FINAL = ("best/val/acc", "best/val/loss", "last/val/acc", "test/acc", "test/loss")  # metrics of a result


FINAL_EMA = ("best/val/ema_acc", "best/val/ema_loss", "test/ema_acc", "test/ema_loss")  # where weights are averaged
