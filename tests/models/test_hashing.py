"""The identity of weights: that of the values, in any precision; computed once."""

from __future__ import annotations

import copy
import gc
import hashlib
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asymflow.core.binding import ModelDescription
from asymflow.core.errors import InputError
from asymflow.core.schedules import plan_of
from asymflow.models import hashing
from asymflow.models.hashing import digest_of, identity_of
from asymflow.planning.binding import bound, match
from tests.helpers import draw

HALVES = (torch.float16, torch.bfloat16)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Linear(40, 40) for _ in range(4)]
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), *layers, nn.BatchNorm1d(40))
    with torch.no_grad():
        for parameter in net.parameters():  # norms begin with ones and zeros
            parameter += 0.1 * torch.randn_like(parameter)
    return net


def description(net: nn.Module) -> ModelDescription:
    identity = identity_of(net)
    return ModelDescription(
        "net", identity.weights, "x_0", "none", fingerprint=identity.fingerprint
    )


def same(one: nn.Module, other: nn.Module) -> bool:
    plan = bound(plan_of((1.0, 0.0)), description(one))
    return match(plan, description(other)).level == "exact"


def loaded(net: nn.Sequential, dtype: torch.dtype) -> nn.Sequential:
    return copy.deepcopy(net).to(dtype)


@pytest.mark.parametrize("first", [torch.float32, *HALVES])
@pytest.mark.parametrize("second", [torch.float32, *HALVES])
def test_the_same_weights_in_any_precision(first: torch.dtype, second: torch.dtype) -> None:
    net = network()
    assert same(loaded(net, first), loaded(net, second))


@pytest.mark.parametrize("stored", HALVES)
@pytest.mark.parametrize("used", [torch.float32, *HALVES])
def test_weights_that_were_stored_in_half_precision(stored: torch.dtype, used: torch.dtype) -> None:
    net = network()
    found = loaded(loaded(net, stored), torch.float32)
    assert same(net, found)
    assert same(found, net)
    assert same(found, loaded(found, used))


def test_networks_whose_norms_stay_in_float32() -> None:
    net = network()
    mixed = [copy.deepcopy(net) for _ in HALVES]
    for each, dtype in zip(mixed, HALVES, strict=True):
        for place, layer in enumerate(each):
            layer.to(torch.float32 if place == 1 else dtype)
        assert same(net, each)
    assert same(*mixed)


@pytest.mark.parametrize("first", [torch.float32, *HALVES])
@pytest.mark.parametrize("second", [torch.float32, *HALVES])
def test_a_small_step_of_training_is_another_model(first: torch.dtype, second: torch.dtype) -> None:
    net = network()
    tuned = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in tuned.parameters():  # one step of Adam
            parameter += 1e-5 * torch.randn_like(parameter).sign()
    assert not same(loaded(net, first), loaded(tuned, second))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_one_changed_weight_is_another_model(dtype: torch.dtype) -> None:
    net = network()
    tuned = copy.deepcopy(net)
    with torch.no_grad():
        tuned.get_parameter("3.weight")[7, 9] += 0.1
    samples = [identity_of(loaded(each, torch.float16)).fingerprint.sample for each in (net, tuned)]
    assert samples[0] == samples[1]  # it is not among those
    assert not same(net, loaded(tuned, dtype))
    assert not same(loaded(net, dtype), tuned)


def test_names_and_shapes_belong_to_it() -> None:
    one = nn.Module()
    one.register_buffer("a", torch.ones(2, 3))
    for name, value in (("b", torch.ones(2, 3)), ("a", torch.ones(3, 2))):
        other = nn.Module()
        other.register_buffer(name, value)
        assert identity_of(one).weights != identity_of(other).weights


def test_whole_numbers_are_hashed_as_they_are() -> None:
    one, other = nn.Module(), nn.Module()
    one.register_buffer("n", torch.tensor([2**24]))
    other.register_buffer("n", torch.tensor([2**24 + 1]))
    assert identity_of(one).weights != identity_of(other).weights
    assert identity_of(one).fingerprint.float16 != identity_of(other).fingerprint.float16


def test_other_tensors_may_belong_to_a_network() -> None:
    net, basis = network(), draw(0, 2, 3)
    found = identity_of(net, {"basis": basis})
    assert found.weights != identity_of(net).weights
    assert found == identity_of(net, {"basis": basis.clone()})


def test_the_digest_of_version_0_1() -> None:
    net = nn.Linear(2, 1)
    digest = hashlib.sha256(b"settings")
    for name, value in sorted(net.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.to(torch.bfloat16).view(torch.uint8).numpy().tobytes())
    assert digest_of(net, b"settings") == digest.hexdigest()


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """Every pass over all weights."""
    made: list[torch.dtype] = []
    whole: Callable[..., str] = vars(hashing)["_hashed"]

    def counted(begin: bytes, state: Mapping[str, Tensor], dtype: torch.dtype) -> str:
        made.append(dtype)
        return whole(begin, state, dtype)

    monkeypatch.setattr(hashing, "_hashed", counted)
    return made


def test_weights_are_read_once(passes: list[torch.dtype]) -> None:
    net = network()
    first = identity_of(net)
    assert sorted(map(str, passes)) == ["torch.bfloat16", "torch.float16"]
    assert identity_of(net) is first
    digests = {digest_of(net, settings) for settings in (b"a", b"b", b"a")}
    assert (len(passes), len(digests)) == (4, 2)


def _step(net: Any) -> None:
    net[0].weight.requires_grad_(False).add_(0.01)


def _one_weight(net: Any) -> None:
    net[3].weight.requires_grad_(False)[7, 9] += 0.1


def _data(net: Any) -> None:
    net[0].weight.data.mul_(1.01)


def _replaced(net: Any) -> None:
    net[0].weight = nn.Parameter(2 * net[0].weight.detach())


def _replaced_by_almost_the_same(net: Any) -> None:
    values = net[3].weight.detach().clone()
    values.data[7, 9] += 0.1  # which counts as no change of the new tensor
    net[3].weight = nn.Parameter(values)


def _read(net: Any) -> None:
    net.load_state_dict(network(1).state_dict())


def _assigned(net: Any) -> None:
    net.load_state_dict(network(1).state_dict(), assign=True)


def _extended(net: Any) -> None:
    net[0].register_buffer("lora", torch.ones(2))


CHANGES = (
    _step,
    _one_weight,
    _data,
    _replaced,
    _replaced_by_almost_the_same,
    _read,
    _assigned,
    _extended,
)


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_read_again(change: Callable[[Any], None]) -> None:
    net = network()
    net[3].weight = nn.Parameter(net.get_parameter("3.weight").detach().clone())
    before = identity_of(net).weights
    change(net)
    assert identity_of(net).weights != before


def test_a_network_converted_in_place_is_the_same() -> None:
    net = network()
    before = description(net)
    net.half()
    assert match(bound(plan_of((1.0, 0.0)), before), description(net)).level == "exact"


def test_the_layout_in_memory_does_not_matter() -> None:
    net = network().half()
    other = copy.deepcopy(net)
    weight = other.get_parameter("0.weight")
    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    assert not other.get_parameter("0.weight").is_contiguous()
    assert identity_of(net) == identity_of(other)


def test_networks_are_not_kept_alive() -> None:
    net = network()
    identity_of(net)
    gone = weakref.ref(net)
    del net
    gc.collect()
    assert gone() is None


def test_weights_that_are_not_in_memory() -> None:
    with torch.device("meta"):
        net = nn.Linear(2, 2)
    with pytest.raises(InputError, match="not in memory"):
        identity_of(net)


def sampled(net: nn.Module, settings: bytes = b"") -> ModelDescription:
    identity = hashing.sampled_identity(net.state_dict(), settings, each=4)
    return ModelDescription(
        "kind", identity.weights, "x_0", "none", fingerprint=identity.fingerprint
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_sample_recognises_weights_in_any_precision(dtype: torch.dtype) -> None:
    plan = bound(plan_of((1.0, 0.0)), sampled(loaded(network(), torch.bfloat16)))
    assert match(plan, sampled(loaded(loaded(network(), torch.bfloat16), dtype))).level == "exact"


def test_a_sample_tells_other_weights_apart() -> None:
    plan, net = bound(plan_of((1.0, 0.0)), sampled(network())), network()
    _step(net)
    assert match(plan, sampled(net)).level == "compatible"
    assert match(plan, sampled(network(), b"patched")).level == "compatible"
    eight = network()
    for parameter in eight.parameters():
        parameter.data = parameter.data.to(torch.float8_e4m3fn)
    assert match(plan, sampled(eight)).level == "compatible"
    assert sampled(network()).weights != identity_of(network()).weights


def test_a_sample_sees_names_shapes_and_whole_numbers() -> None:
    def digest(**state: Tensor) -> str:
        return hashing.sampled_identity(state).weights

    flat = torch.arange(6)
    known = digest(a=flat)
    others = (digest(b=flat), digest(a=flat.view(2, 3)), digest(a=flat + 1), digest(a=flat[:0]))
    assert known == digest(a=flat.clone())
    assert len({known, *others}) == 5
