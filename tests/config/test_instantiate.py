"""Instantiating a `_target_` node: which arguments reach the target, and one line for each mistake."""

from __future__ import annotations

import collections
import fractions
import textwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.config.instantiate import accepts, construct, locate
from cnnbench.config.schema import DataKeys, Node
from cnnbench.errors import ConfigError

NAMES = ("in_channels", "num_classes", "image_size", "depth", "width")


def node(target: str, **arguments) -> Node:
    return Node(_target_=target, **arguments)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Returns a function that writes a user's module and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)
    serial = iter(range(100))

    def write(source: str) -> str:
        name = f"usermodule_{tmp_path.name.replace('-', '_')}_{next(serial)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        return name

    return write


def test_locate_finds_a_class_a_function_and_a_method_by_dotted_name():
    assert locate(node("collections.OrderedDict"), "model") is collections.OrderedDict
    assert locate(node("textwrap.dedent"), "model") is textwrap.dedent
    assert locate(node("fractions.Fraction.from_float"), "model") == fractions.Fraction.from_float


def test_locate_imports_a_users_module(written):
    name = written("def net(): return 'mine'")
    assert locate(node(f"{name}.net"), "model")() == "mine"


@pytest.mark.parametrize("target", ["nosuchmodule.Net", "collections.Nope", "Net", "", "a..b", "torch.nn.1"])
def test_a_name_that_cannot_be_imported_is_refused_with_the_key_and_an_example(target):
    with pytest.raises(ConfigError) as caught:
        locate(node(target), "model")
    assert str(caught.value).startswith(f"model._target_={target}: cannot be imported (")
    assert "expected a dotted name such as mypkg.MyNet" in str(caught.value)


def test_the_message_on_a_users_module_names_the_missing_import(written):
    name = written("import nosuchdependency")
    with pytest.raises(ConfigError, match="nosuchdependency"):
        locate(node(f"{name}.Net"), "model")


@pytest.mark.parametrize(("target", "kind"), [("torch.nn", "module"), ("math.pi", "float"), ("sys.path", "list")])
def test_a_target_that_cannot_be_called_is_refused_with_its_type(target, kind):
    with pytest.raises(ConfigError, match=f"^model._target_={target}: is a {kind}, expected a class or function$"):
        locate(node(target), "model")


def test_a_target_without_a_signature_is_refused():
    with pytest.raises(ConfigError, match=r"^model._target_=builtins.dict: its arguments are unknown; expected"):
        construct(node("builtins.dict"), "model")


def test_arguments_reach_the_target():
    layer = construct(node("torch.nn.Linear", in_features=3, out_features=5, bias=False), "model")
    assert (layer.in_features, layer.out_features, layer.bias) == (3, 5, None)


def test_positional_arguments_reach_the_target_first():
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = construct(node("torch.optim.SGD", lr=0.25, momentum=0.5), "optimizer", [parameter])
    assert optimizer.param_groups[0]["params"] == [parameter]
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (0.25, 0.5)


@settings(deadline=None)
@given(
    st.sets(st.sampled_from(NAMES)),
    st.dictionaries(st.sampled_from(NAMES), st.integers()),
    st.dictionaries(st.sampled_from(NAMES), st.integers()),
)
def test_a_target_gets_its_arguments_and_only_the_facts_that_it_names(taken, arguments, facts):
    globals()["_probe"] = _function_of(taken)
    given_ = {name: value for name, value in arguments.items() if name in taken and name not in facts}
    received = construct(node(f"{__name__}._probe", **given_), "model", **facts)
    assert received == {name: {**facts, **given_}.get(name) for name in taken}


@settings(deadline=None)
@given(st.sets(st.sampled_from(NAMES)), st.sampled_from(NAMES))
def test_an_argument_is_refused_exactly_if_the_target_does_not_name_it(taken, name):
    globals()["_probe"] = _function_of(taken)
    if name in taken:
        assert construct(node(f"{__name__}._probe", **{name: 1}), "model")[name] == 1
    else:
        with pytest.raises(ConfigError, match=rf"^model\.{name}: probe takes no {name}"):
            construct(node(f"{__name__}._probe", **{name: 1}), "model")


def _function_of(names):
    """A function with these keyword arguments that returns them."""
    scope: dict = {}
    exec(f"def probe({', '.join(f'{name}=None' for name in sorted(names))}): return dict(locals())", scope)
    return scope["probe"]


def test_a_target_with_open_keywords_takes_any_argument():
    assert construct(node("collections.Counter", a=2), "model") == collections.Counter(a=2)


def test_a_target_with_open_keywords_gets_no_fact_that_it_does_not_name():
    assert construct(node("collections.Counter", a=2), "model", in_channels=1) == collections.Counter(a=2)


def test_a_misspelt_argument_is_answered_with_the_near_one():
    with pytest.raises(ConfigError, match=r"^optimizer\.momentun: SGD takes no momentun; did you mean momentum\?"):
        construct(node("torch.optim.SGD", lr=0.1, momentun=0.9), "optimizer", [torch.zeros(1)])


def test_an_unknown_argument_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"^scheduler\.zzz: cosine takes no zzz; it takes: final_lr, warmup_epochs$"):
        construct(
            node("cnnbench.training.schedulers.cosine", zzz=1), "scheduler", object(), total_steps=3, steps_per_epoch=1
        )


def test_the_message_on_a_target_without_arguments_states_that_it_takes_nothing():
    with pytest.raises(ConfigError, match=r"it takes: nothing$"):
        construct(
            node("cnnbench.models.simplecnn.SimpleCNN", zzz=1), "model", in_channels=1, num_classes=10, image_size=8
        )


def test_a_fact_of_the_data_cannot_be_typed():
    with pytest.raises(ConfigError, match=r"^model\.in_channels: LeNet5 takes no in_channels"):
        construct(node("cnnbench.models.lenet5.LeNet5", in_channels=3), "model", in_channels=1, num_classes=10)


def test_a_missing_argument_is_answered_with_what_to_type():
    with pytest.raises(ConfigError, match=r"^model\.out_features: Linear needs it; type \+model\.out_features=\.\.\.$"):
        construct(node("torch.nn.Linear", in_features=3), "model")


@pytest.mark.parametrize("error", ["ValueError", "TypeError", "AssertionError", "IndexError", "RuntimeError"])
def test_a_value_that_the_target_refuses_gets_one_line_with_the_arguments(written, error):
    name = written(f"def net(depth, wide=False): raise {error}('depth is odd,\\n   like me')")
    with pytest.raises(ConfigError) as caught:
        construct(node(f"{name}.net", depth=[3, None], wide=True), "model")
    assert str(caught.value) == "model: net(depth=[3,null], wide=true) is refused: depth is odd, like me"


def test_a_value_that_torch_refuses_is_a_config_error():
    with pytest.raises(ConfigError, match=r"optimizer: SGD\(lr=-1\.0\) is refused: Invalid learning rate: -1\.0"):
        construct(node("torch.optim.SGD", lr=-1.0), "optimizer", [torch.nn.Parameter(torch.zeros(1))])


def test_the_fingerprint_of_frozen_data_keys_is_no_argument(written):
    name = written("def data(**keys): return keys")
    keys = DataKeys(
        _target_=f"{name}.data",
        root="auto",
        image_size="auto",
        mean="auto",
        std="auto",
        train_size=None,
        val_size=None,
        test_size=None,
        fraction=1.0,
        split_seed=0,
        pipeline="auto",
        fingerprint="0123",
    )
    received = construct(keys, "data")
    assert "fingerprint" not in received
    assert "_target_" not in received
    assert received["fraction"] == 1.0


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("lr", [1, 2], r"^optimizer\.lr=\[1,2\]: SGD refuses it \(.*\); its default is 0\.001$"),
        ("momentum", True, r"^optimizer\.momentum=true: SGD expects a number$"),
    ],
)
def test_an_argument_of_another_kind_than_its_default_is_named(argument, value, message):
    with pytest.raises(ConfigError, match=message):
        construct(node("torch.optim.SGD", **{argument: value}), "optimizer", [torch.nn.Parameter(torch.zeros(1))])


def test_accepts_knows_named_arguments_and_open_keywords():
    assert accepts(torch.optim.SGD, "momentum")
    assert not accepts(torch.optim.Adam, "momentum")
    assert accepts(collections.Counter, "anything")
    assert not accepts(dict, "anything")  # it has no signature
