"""A loaded config may name the kind of part that each group needs, and nothing else of cnnbench, torch and torchvision."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnbench.config.compose import compose
from cnnbench.config.schema import Node
from cnnbench.config.trusted_names import needs_trust
from cnnbench.errors import ConfigError, Untrusted
from cnnbench.runs.trust import require_no_loaded_weights, require_trusted_parts, without_weights

# Classes and functions that run code, read or write files, or open connections; and modules, objects and paths through modules.
HARMFUL = """
    os.system os.popen os.remove subprocess.run subprocess.Popen shutil.rmtree builtins.exec builtins.eval builtins.open
    builtins.__import__ importlib.import_module runpy.run_path pickle.load pickle.loads marshal.loads ctypes.CDLL socket.socket
    urllib.request.urlopen webbrowser.open numpy.load pandas.read_pickle joblib.load yaml.unsafe_load hydra.utils.call
    hydra.utils.instantiate timm.create_model
    torch.load torch.save torch.hub.load torch.hub.load_state_dict_from_url torch.hub.download_url_to_file torch.jit.load
    torch.serialization.load torch.package.PackageImporter torch.utils.cpp_extension.load torch.utils.cpp_extension.load_inline
    torch.utils.model_zoo.load_url torch.ops.load_library torch.classes.load_library torch.distributed.init_process_group
    torch.distributed.rpc.init_rpc torch.multiprocessing.spawn torch.from_file torch.export.load torch._inductor.aoti_load_package
    torchvision.io.read_file torchvision.io.read_image torchvision.io.write_file torchvision.datasets.MNIST
    torchvision.datasets.utils.download_url torchvision.datasets.ImageFolder torchvision.ops.misc.ConvNormActivation
    torch.nn.modules.module.torch.load torch.nn.modules.module.warnings.sys.exit torch.nn.functional.torch.hub.load
    torch.nn.parallel.distributed.dist.init_process_group torch.nn.functional.relu torch.nn.init.zeros_
    torch.nn.utils.parameters_to_vector torch.nn.Parameter torch.nn.modules.module.Any torch.nn.Module torch.nn.Module.__init__
    torch.nn.Linear.forward torch.nn.Linear.__subclasses__ torch.nn.modules
    torch.optim.optimizer.torch.load torch.optim.lr_scheduler.warnings.sys.exit torch.optim.Optimizer
    torch.optim.lr_scheduler.LRScheduler torch.optim.swa_utils.update_bn torch.optim.lr_scheduler.partial
    torchvision.models.resnet.partial torchvision.models.get_weight torchvision.models.get_model_weights
    torchvision.models.list_models torchvision.models.get_model_builder torchvision.models.ResNet18_Weights
    torchvision.models._api.load_state_dict_from_url torchvision.models._utils.handle_legacy_interface
    torchvision.models.resnet.ResNet.forward torchvision.models.quantization.resnet.quantize_model
    cnnbench.files.write_atomic cnnbench.files.open_atomic cnnbench.files.open_append cnnbench.files.os.system
    cnnbench.runs.environment.subprocess.run cnnbench.runs.load_net.load_net cnnbench.runs.checkpoint.load_checkpoint
    cnnbench.runs.checkpoint.torch.load cnnbench.runs.run_dir.RunDir cnnbench.runs.run_dir.RunDir.create
    cnnbench.runs.file_lock.exclusive_lock cnnbench.sweep.merge.main cnnbench.cli.clean.main cnnbench.cli.train.main
    cnnbench.cli.fetch.main cnnbench.data.download.fetch.fetch cnnbench.data.download.http.requests.get
    cnnbench.data.download.archives.unpack cnnbench.distributed.fork_server.run_in_subprocess cnnbench.config.instantiate.locate
    cnnbench.config.instantiate.construct cnnbench.config.instantiate.pkgutil.resolve_name cnnbench.config.yaml_file.yaml.unsafe_load
    cnnbench.training.run.run cnnbench.data.datamodule.ImageData cnnbench.augment.step.Step cnnbench.augment.step.Augment
    cnnbench.os.system cnnbench.__main__.main cnnbench.models cnnbench.models.lenet5 cnnbench.models.lenet5.nn.Linear.__init__
""".split()
GROUPS = ("model", "data", "augment", "optimizer", "scheduler")
ALLOWED = {  # of the other groups' parts each is a wrong one
    "model": "cnnbench.models.lenet5.LeNet5",
    "data": "cnnbench.data.sets.mnist5k.MNIST5k",
    "augment": "cnnbench.augment.transforms.RandomHorizontalFlip",
    "optimizer": "torch.optim.SGD",
    "scheduler": "torch.optim.lr_scheduler.StepLR",
}


@pytest.fixture(scope="module")
def default():
    return compose([])


def naming(config, group: str, node: Node):
    return config.model_copy(update={group: {"step": node} if group == "augment" else node})


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("target", HARMFUL)
def test_what_is_no_part_of_the_group_is_refused(default, group, target):
    with pytest.raises(ConfigError) as refused:
        require_trusted_parts(Path("run"), naming(default, group, Node(_target_=target)))
    assert target in str(refused.value)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("other", GROUPS)
def test_a_part_is_trusted_in_its_own_group_only(default, group, other):
    config = naming(default, group, Node(_target_=ALLOWED[other]))
    if group == other:
        require_trusted_parts(Path("run"), config)
    else:
        with pytest.raises(Untrusted):
            require_trusted_parts(Path("run"), config)


@pytest.mark.parametrize(
    "value", [10**6 + 1, -(10**7), 1e9, float("inf"), float("nan"), [1, [10**9]], {"a": {"b": 10**9}}], ids=repr
)
def test_a_number_that_no_net_has_needs_trust(default, value):
    config = naming(default, "model", Node(_target_=ALLOWED["model"], width=value))
    assert needs_trust(config)
    with pytest.raises(Untrusted, match=r"model\.width=.*, expected numbers of at most 1,000,000; if you know where"):
        require_trusted_parts(Path("run"), config)


# ---- weights of others -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        ("resnet18", {"weights": "DEFAULT"}),
        ("resnet18", {"weights": "IMAGENET1K_V1", "progress": False}),
        ("resnet18", {"pretrained": True}),
        ("get_model", {"name": "resnet18", "weights": "DEFAULT"}),
        ("get_model", {"name": "fcn_resnet50"}),
        ("quantization.resnet18", {"weights": "DEFAULT"}),
        ("segmentation.fcn_resnet50", {}),
        ("segmentation.fcn_resnet50", {"weights_backbone": "DEFAULT"}),
        ("segmentation.fcn_resnet50", {"pretrained_backbone": True}),
        ("detection.fasterrcnn_resnet50_fpn", {}),
    ],
)
def test_training_again_from_weights_of_others_needs_trust_and_other_uses_build_without(default, target, arguments):
    node = Node(_target_=f"torchvision.models.{target}", **arguments)
    with pytest.raises(Untrusted, match="which loads weights of others; if you know where"):
        require_no_loaded_weights(Path("run"), naming(default, "model", node))
    bare = without_weights(node)
    require_no_loaded_weights(Path("run"), naming(default, "model", bare))
    assert without_weights(bare) == bare


@pytest.mark.parametrize(
    "arguments", [{}, {"weights": None}, {"pretrained": False}, {"progress": True}, {"width_per_group": 32}], ids=repr
)
def test_a_net_without_weights_of_others_needs_no_trust(default, arguments):
    node = Node(_target_="torchvision.models.resnet18", **arguments)
    require_no_loaded_weights(Path("run"), naming(default, "model", node))
    assert without_weights(node).arguments.get("width_per_group") == arguments.get("width_per_group")


def test_a_trusted_timm_net_is_built_without_its_weights():
    node = Node(_target_="timm.create_model", model_name="resnet18", pretrained=True, checkpoint_path="evil.ckpt")
    assert without_weights(node).arguments == {"model_name": "resnet18", "pretrained": False, "checkpoint_path": ""}


def test_the_arguments_of_a_users_net_keep_their_meaning():
    node = Node(_target_="mypkg.Net", weights="equal", pretrained=True)
    assert without_weights(node) == node


@pytest.mark.parametrize(("module", "name"), [("googlenet", "googlenet"), ("inception", "inception_v3")])
def test_a_net_that_began_with_weights_is_built_as_it_was(module, name, monkeypatch):
    from torchvision import models

    builder = models.get_model_builder(name)
    net_class = models.GoogLeNet if name == "googlenet" else models.Inception3
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", lambda self, *_, **__: {})
    monkeypatch.setattr(net_class, "load_state_dict", lambda self, *_, **__: None)
    trained = builder(weights="DEFAULT")
    bare = without_weights(Node(_target_=f"torchvision.models.{module}.{name}", weights="DEFAULT"))
    again = builder(**bare.arguments, init_weights=False)
    assert again.transform_input is trained.transform_input is True
    assert list(again.state_dict()) == list(trained.state_dict())
