"""Names of the metrics in result.json: best or last epoch / split / metric."""

from __future__ import annotations

FINAL = ("best/val/acc", "best/val/loss", "last/val/acc", "test/acc", "test/loss")
# of averaged weights, with ema=...
FINAL_EMA = ("best/val/ema_acc", "best/val/ema_loss", "test/ema_acc", "test/ema_loss")
