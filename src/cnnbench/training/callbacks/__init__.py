"""The callbacks of a fit: everything that a run does while it trains, except for the training step.

Lightning calls the hooks of all callbacks in the order of their list, which `training/run.py` sets:

    Divergence        raises if a loss, a gradient or a weight is not finite
    History           records epochs and validations, writes metrics.csv; the others read it
    EarlyStopping     ends the fit
    NormRecorder      norms of gradients and activations, with log=full
    TensorBoardWriter the event file
    Curves            curves.png
    RunProgress       the bar, or a line an epoch
    Checkpoints       best.ckpt, last.ckpt
    GracefulStop      saves at intervals, and saves and stops on a signal
"""
