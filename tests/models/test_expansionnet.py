"""ExpansionNet v2 against golden values of the published implementation, and its promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from beholder.errors import CheckpointError
from beholder.models.dynamic_expansion import DynamicExpansion
from beholder.models.expansion import PictureGroups, StaticExpansion
from beholder.models.expansionnet import ExpansionNet, ExpansionNetConfig

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = ExpansionNetConfig(
    vocab_size=11,
    d_model=8,
    enc_layers=2,
    dec_layers=2,
    ff=16,
    heads=2,
    enc_expansions=(3, 5),
    dec_expansions=3,
    max_length=7,
    feature_dim=6,
)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN / "expansionnet_tensors.safetensors")


@pytest.fixture(scope="module")
def pads() -> dict[str, list[int]]:
    return json.loads((GOLDEN / "expansionnet.json").read_text())


@pytest.fixture(scope="module")
def model() -> ExpansionNet:
    config = json.loads((GOLDEN / "expansionnet.json").read_text())["config"]
    fields = {name: config[name] for name in ExpansionNetConfig.model_fields if name in config}
    model = ExpansionNet(ExpansionNetConfig(vocab_size=config["vocab"], **fields)).eval()
    model.load_reference_state_dict(load_file(GOLDEN / "expansionnet_weights.safetensors"))
    return model


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max().detach())


def test_encoder_as_published(model: ExpansionNet, golden: dict[str, Tensor]) -> None:
    assert difference(model.encode(golden["features"]), golden["encoded"]) < 1e-5


def test_padded_encoder_as_published(
    model: ExpansionNet, golden: dict[str, Tensor], pads: dict[str, list[int]]
) -> None:
    lengths = [golden["features"].shape[1] - pad for pad in pads["feature_pads"]]
    encoded = model.encode(golden["features"], lengths)
    for row, length in enumerate(lengths):
        assert difference(encoded[row, :length], golden["encoded_padded"][row, :length]) < 1e-5


def test_log_probabilities_as_published(model: ExpansionNet, golden: dict[str, Tensor]) -> None:
    log_probs = model.decode(model.encode(golden["features"]), golden["tokens"])
    assert difference(log_probs, golden["log_probs"]) < 1e-5


def test_padded_log_probabilities_as_published(
    model: ExpansionNet, golden: dict[str, Tensor], pads: dict[str, list[int]]
) -> None:
    lengths = [golden["features"].shape[1] - pad for pad in pads["feature_pads"]]
    token_lengths = [golden["tokens"].shape[1] - pad for pad in pads["token_pads"]]
    memory = model.encode(golden["features"], lengths)
    log_probs = model.decode(memory, golden["tokens"], lengths, token_lengths)
    for row, length in enumerate(token_lengths):
        expected = golden["log_probs_padded"][row, :length]
        assert difference(log_probs[row, :length], expected) < 1e-5
        assert not log_probs[row, length:].any()


def test_what_follows_a_position_changes_nothing_before_it(model: ExpansionNet) -> None:
    tokens = torch.randint(0, 50, (2, 10), generator=torch.Generator().manual_seed(0))
    memory = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[:, 6:] = (changed[:, 6:] + 7) % 50
    before, after = model.decode(memory, tokens), model.decode(memory, changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert difference(before[:, 6:], after[:, 6:]) > 1e-3


@given(
    index=st.lists(st.integers(0, 3), min_size=1, max_size=9),
    seed=st.integers(0, 1000),
)
@settings(max_examples=20, deadline=None)
def test_comments_share_their_picture(index: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    model = ExpansionNet(TINY).eval()
    memory = torch.randn(4, 5, 8)
    lengths = torch.tensor([5, 2, 1, 4])
    tokens = torch.randint(0, 11, (len(index), 6))
    picture_index = torch.tensor(index)
    shared = model.decode(memory, tokens, lengths, picture_index=picture_index)
    repeated = model.decode(memory[picture_index], tokens, lengths[picture_index])
    assert difference(shared, repeated) < 1e-5


def test_gradient_reaches_a_shared_picture_from_all_its_comments() -> None:
    torch.manual_seed(0)
    model = ExpansionNet(TINY).double().eval()
    memory = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(0, 11, (3, 6))
    index = torch.tensor([1, 0, 1])
    (shared,) = torch.autograd.grad(
        model.decode(memory, tokens, picture_index=index).square().sum(), memory
    )
    (repeated,) = torch.autograd.grad(model.decode(memory[index], tokens).square().sum(), memory)
    assert difference(shared, repeated) < 1e-9


def test_groups_in_order_cost_no_copy() -> None:
    rows = torch.randn(6, 2, 3)
    groups = PictureGroups(torch.tensor([0, 0, 1, 1, 2, 2]), 3)
    assert groups.gather(rows).data_ptr() == rows.data_ptr()
    assert torch.equal(groups.scatter(groups.gather(rows), 2), rows)


@pytest.mark.parametrize("block", ["static", "dynamic"])
def test_both_orders_of_the_product_agree(block: str) -> None:
    """With dropout of (nearly) nothing, training takes the long way round; values stay."""
    torch.manual_seed(0)
    long_way = (
        StaticExpansion(8, (3, 5), 1e-12) if block == "static" else (DynamicExpansion(8, 3, 1e-12))
    )
    long_way = long_way.double()
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    arguments = (x, None) if block == "static" else (x,)
    direct = long_way.train()(*arguments)
    reassociated = long_way.eval()(*arguments)
    assert difference(direct, reassociated) < 1e-9


def test_dropouts_act_in_training_only() -> None:
    for name in ("encoder", "decoder", "encoder_input", "decoder_input", "other"):
        torch.manual_seed(0)
        model = ExpansionNet(TINY.model_copy(update={f"dropout_{name}": 0.5}))
        features, tokens = torch.randn(2, 5, 6), torch.randint(0, 11, (2, 6))
        model.train()
        noisy = [model.decode(model.encode(features), tokens) for _ in range(2)]
        model.eval()
        calm = [model.decode(model.encode(features), tokens) for _ in range(2)]
        assert difference(*noisy) > 1e-3, name
        assert torch.equal(*calm), name


def test_every_parameter_is_trained() -> None:
    torch.manual_seed(0)
    model = ExpansionNet(TINY).train()
    tokens = torch.randint(0, 11, (2, 7))
    model.decode(model.encode(torch.randn(2, 5, 6)), tokens)[..., 3].sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_reference_tensors_make_a_round_trip(model: ExpansionNet) -> None:
    published = load_file(GOLDEN / "expansionnet_weights.safetensors")
    written = model.reference_state_dict()
    assert written.keys() == published.keys()
    assert all(torch.equal(written[name], published[name]) for name in published)


def test_a_checkpoint_of_another_shape_is_named_with_both_shapes() -> None:
    state = ExpansionNet(TINY).reference_state_dict()
    other = ExpansionNet(TINY.model_copy(update={"dec_expansions": 4}))
    with pytest.raises(CheckpointError, match=r"decoders\.0\.dyn_exp.*\(3, 8\).*\(4, 8\)"):
        other.load_reference_state_dict(state)


def test_a_missing_tensor_is_named() -> None:
    state = ExpansionNet(TINY).reference_state_dict()
    del state["vocab_linear.bias"]
    with pytest.raises(CheckpointError, match=r"vocab_linear\.bias.*missing"):
        ExpansionNet(TINY).load_reference_state_dict(state)


def test_an_unknown_tensor_is_named_and_nothing_is_loaded() -> None:
    source = ExpansionNet(TINY).reference_state_dict()
    source["decoders.2.norm_1.bias"] = torch.zeros(8)
    model = ExpansionNet(TINY)
    before = model.output.weight.clone()
    with pytest.raises(CheckpointError, match=r"decoders\.2\.norm_1\.bias"):
        model.load_reference_state_dict(source)
    assert torch.equal(model.output.weight, before)


def test_fused_layers_start_like_separate_ones() -> None:
    torch.manual_seed(0)
    weight = ExpansionNet(TINY).decoder[0].expansion.project.weight.detach()
    bound = (6 / (8 + 8)) ** 0.5
    for part in weight.chunk(5):
        assert 0.7 * bound < float(part.abs().max()) <= bound


@pytest.mark.parametrize("lengths", [[5], [5, 0], [5, 6]])
def test_impossible_lengths_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="lengths"):
        ExpansionNet(TINY).encode(torch.zeros(2, 5, 6), lengths)


def test_too_many_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 7"):
        ExpansionNet(TINY).decode(torch.zeros(1, 5, 8), torch.zeros(1, 8, dtype=torch.long))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="divide"):
        ExpansionNetConfig(vocab_size=10, d_model=10, heads=4)
