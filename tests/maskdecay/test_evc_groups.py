"""EVC in all its sizes: the groups worked out from its config, and half of each as the same network."""

import pytest
import torch
from maskdecay.codecs.evc import PRESETS, build_preset
from test_zoo import assert_agree, count, outputs

import maskdecay as md


def trunk(name, width):
    return {f"{name}.block.0.conv1.0": width, f"{name}.block.1.conv.0": 4 * width}


def expected(config):
    """Inner widths everywhere; outer ones where neither latents nor hyper-latents are added onto them."""
    n, widths = config.latent, {}

    def share(width):
        return width if config.priors == 1 else 8 * round(config.priors * width / 8)

    def prior(name, inputs, outputs, **more):
        hidden = max(min(4 * outputs, 1024), 2 * outputs)
        inner = {f"{name}.block.0.conv1.0": share(inputs), f"{name}.block.1.conv.0": share(hidden)}
        return inner | {f"{name}.block.{where}": width for where, width in more.items()}

    for i, width in enumerate(config.encoder[:3]):
        widths |= {f"enc.{2 * i}.conv1": width, f"enc.{2 * i}.conv2": width} | trunk(f"enc.{2 * i + 1}", width)
    widths |= prior("hyper_enc.0", n, n) | {"hyper_enc.1": share(n)}
    widths |= prior("hyper_dec.0", n, n, **{"2": n}) | prior("hyper_dec.1", n, n, **{"2": n})
    widths |= prior("hyper_dec.2", n, n)
    first, second = share(2 * n), share(3 * n)
    widths |= prior("y_prior_fusion.0", n, first, **{"0.adaptor": first}) | prior("y_prior_fusion.1", first, 3 * n)
    widths |= prior("y_spatial_prior.0", 4 * n, second, **{"0.adaptor": second})
    widths |= prior("y_spatial_prior.1", second, 2 * n) | prior("y_spatial_prior.2", 2 * n, 2 * n)
    widths |= trunk("dec.0", config.decoder[3])
    for i, width in enumerate(reversed(config.decoder[:3])):
        at = 2 * i + 1
        widths |= {f"dec.{at}.subpel_conv.0": width, f"dec.{at}.conv": width} | trunk(f"dec.{at + 1}", width)
    return widths


REFUSED = {
    "enc.6": "is reduced over channels by sum, with no weight between",
    "hyper_enc.3": "is reduced over channels by sum, with no weight between",
    "dec.7.0": "reaches an output",
}
WIDE = [pytest.param(name, marks=pytest.mark.long) for name in ("large", "medium", "small")]


@pytest.mark.parametrize("name", ["narrow-large", *WIDE])
def test_half_of_evc_is_the_same_network(name, tmp_path):
    model, x = build_preset(name, seed=0), torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    groups = md.find_groups(model, x)
    assert {g.name: g.width for g in groups.prunable} == expected(PRESETS[name])
    assert {g.name for g in groups} - {g.name for g in groups.prunable} == set(REFUSED)
    assert all(piece in groups[name].refusal for name, piece in REFUSED.items())
    before, whole = outputs(model, x), count(model)
    masks = md.insert_masks(model, md.Plan.ratio(groups, keep=0.5))
    assert_agree(before, outputs(model, x), relative=0)
    masks.collapse()
    student = md.shrink(model, masks)
    assert count(student) < 0.6 * whole
    assert_agree(outputs(model, x), outputs(student, x))
    md.save(student, tmp_path / "student.safetensors")
    loaded = md.load(tmp_path / "student.safetensors", lambda: build_preset(name)).eval()
    assert_agree(outputs(student, x), outputs(loaded, x), relative=1e-6)
