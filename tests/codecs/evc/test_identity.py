import copy

import pytest
import torch
from maskdecay.codecs.evc import EVC, fast, model_identity
from torch import nn
from torch.nn.utils import parametrize

import maskdecay as md


class Scaled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * torch.tensor([0.0, 1.0, 1.0, 0.0])[:, None, None, None]


def test_it_is_eight_bytes_of_the_weights(tiny: EVC) -> None:
    """Of numbers that every machine has: initial weights come from a decomposition, whose last bits differ."""
    known = copy.deepcopy(tiny)
    with torch.no_grad():
        for tensor in known.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(((torch.arange(tensor.numel()) % 257) / 256).view_as(tensor))
    assert model_identity(known).hex() == "5b2dadda0ecf7f31"


def test_dtype_layout_and_inference_copies_do_not_count(tiny: EVC) -> None:
    identity = model_identity(tiny)
    assert model_identity(copy.deepcopy(tiny).double()) == identity
    assert model_identity(copy.deepcopy(tiny).to(memory_format=torch.channels_last)) == identity  # type: ignore[call-overload]
    assert model_identity(fast(tiny)) == identity
    assert model_identity(fast(tiny, encoder_dtype=torch.bfloat16)) == identity


def test_encoders_do_not_count(tiny: EVC) -> None:
    other = copy.deepcopy(tiny)
    with torch.no_grad():
        other.enc[0].conv1.weight.mul_(2)  # type: ignore[union-attr]
        other.hyper_enc[1].weight.mul_(2)
        other.q_scale.mul_(2)
    assert model_identity(other) == model_identity(tiny)


@pytest.mark.parametrize(
    "name", ["q_basic", "dec.0.block.1.conv.2.bias", "hyper_dec.2.block.0.conv1.0.weight", "bit_estimator_z.f1.h"]
)
def test_the_last_bit_of_what_decodes_counts(tiny: EVC, name: str) -> None:
    other = copy.deepcopy(tiny)
    with torch.no_grad():
        values = other.get_parameter(name).view(-1)
        values[0] = torch.nextafter(values[0], torch.tensor(9e9))
    assert model_identity(other) != model_identity(tiny)


def test_masks_count_as_the_weights_they_make(tiny: EVC) -> None:
    masked = copy.deepcopy(tiny)
    layer = masked.dec[6].block[0].conv1[0]  # type: ignore[index,union-attr]
    parametrize.register_parametrization(layer, "weight", Scaled())
    assert model_identity(masked) == model_identity(fast(masked))
    assert model_identity(masked) != model_identity(tiny)


def test_half_precision_is_refused(tiny: EVC) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(ValueError, match=r"is of torch\.b?float16: the identity of the trained weights is lost"):
            model_identity(copy.deepcopy(tiny).to(dtype))


def test_saving_and_loading_do_not_count(tiny: EVC, tmp_path) -> None:
    md.save(tiny, tmp_path / "a.safetensors")
    assert model_identity(md.load(tmp_path / "a.safetensors", lambda: copy.deepcopy(tiny))) == model_identity(tiny)
