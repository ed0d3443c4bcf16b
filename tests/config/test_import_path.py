"""Where a user's own modules are found: in the current folder of a command, after the installed packages."""

import sys
from pathlib import Path

import pytest

from cnnbench.config import import_path
from cnnbench.config.instantiate import locate
from cnnbench.config.schema import Node
from cnnbench.errors import ConfigError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder of a command, with modules `own_parts`, `code` (as in Python) and a package `yaml` (as installed)."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setattr(import_path, "_allowed", str(tmp_path))
    (tmp_path / "own_parts.py").write_text("class Net: ...")
    (tmp_path / "code.py").write_text("class Net: ...")
    (tmp_path / "yaml").mkdir()
    yield tmp_path
    sys.modules.pop("own_parts", None)


def find(target: str):
    return locate(Node(_target_=target), "model")


def test_a_part_of_the_current_folder_is_found_and_the_folder_is_searched_last(folder):
    assert find("own_parts.Net").__name__ == "Net"
    assert sys.path[-1] == str(folder)


@pytest.mark.parametrize("target", ["torch.nn.Linear", "cnnbench.models.lenet5.LeNet5", "collections.OrderedDict"])
def test_the_folder_is_not_searched_for_an_installed_part(folder, target):
    find(target)
    assert str(folder) not in sys.path


def test_no_folder_is_searched_for_a_misspelt_part_of_cnnbench(folder):
    with pytest.raises(ConfigError, match="cannot be imported"):
        find("cnnbench.models.lenet5.LeNet6")
    assert str(folder) not in sys.path


def test_a_program_that_imports_cnnbench_chooses_its_own_path(folder):
    import_path.allow(None)
    before = list(sys.path)
    with pytest.raises(ConfigError, match="No module named 'own_parts'"):
        find("own_parts.Net")
    assert sys.path == before


@pytest.mark.parametrize("target", ["code.Net", "yaml.Net"])
def test_an_installed_module_that_hides_an_own_one_is_named(folder, target):
    name = target.partition(".")[0]
    with pytest.raises(ConfigError) as raised:
        find(target)
    hiding = Path(sys.modules[name].__file__)
    assert str(raised.value).endswith(
        f"{name} is {hiding}, which comes before the {name} of this folder: give that another name"
    )


def test_no_module_hides_a_part_that_is_nowhere(folder):
    with pytest.raises(
        ConfigError, match=r"expected a dotted name such as mypkg.MyNet, importable from the folder you are in"
    ):
        find("no_such_parts.Net")
