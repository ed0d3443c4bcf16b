"""What does this choice do to a CNN? Classic convolutional networks, Hydra configs, honest comparisons.

The stable Python API. Names are imported at their first use: `import cnnbench` loads no torch.

    from cnnbench import compose, run, load_net, load_runs, ImageData, Step

    compose     returns the config of `key=value` overrides
    run         trains and tests a config, in a new run directory
    load_net    returns the trained net of a run directory
    load_runs   returns a folder of runs as a pandas DataFrame
    ImageData   base class of your own data sets
    Step        base class of your own augmentation steps
"""

# No module is imported here: `python -m cnnbench` imports this file while the current folder is still first on `sys.path`.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from cnnbench.augment.step import Step
    from cnnbench.config.compose import compose
    from cnnbench.data.datamodule import ImageData
    from cnnbench.report.load.dataframe import load_runs
    from cnnbench.runs.load_net import load_net
    from cnnbench.training.run import run

__version__ = "0.1.0"
__all__ = ["ImageData", "Step", "compose", "load_net", "load_runs", "run"]

MODULES = {
    "compose": "config.compose",
    "run": "training.run",
    "load_net": "runs.load_net",
    "load_runs": "report.load.dataframe",
    "ImageData": "data.datamodule",
    "Step": "augment.step",
}


def __getattr__(name: str) -> object:
    if name in MODULES:
        from importlib import import_module

        return getattr(import_module(f"cnnbench.{MODULES[name]}"), name)
    raise AttributeError(f"module 'cnnbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
