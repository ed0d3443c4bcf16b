"""The Python API, `from cnnbench import ...`, and the modules that `import cnnbench` loads."""

import subprocess
import sys

import pytest

import cnnbench


def test_every_public_name_exists():
    assert set(cnnbench.__all__) == {"compose", "run", "load_net", "load_runs", "ImageData", "Step"}
    assert all(getattr(cnnbench, name).__name__ == name for name in cnnbench.__all__)
    assert set(cnnbench.__all__) < set(dir(cnnbench))


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cnnbench.nothing


def test_importing_cnnbench_loads_none_of_its_modules():
    code = "import sys, cnnbench; print([name for name in sys.modules if name.startswith('cnnbench.')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_former_modules_of_base_classes_still_work():
    from cnnbench.data.augment import Step
    from cnnbench.data.base import ImageData

    assert (ImageData, Step) == (cnnbench.ImageData, cnnbench.Step)
