"""EVC with entropy parameters in integers: the same interface, nearly the same rate, and the same file everywhere."""

import copy
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from maskdecay.codecs._gaussian import LEVELS, SCALE_MAX, SCALE_MIN, scale_indices, table_scales
from maskdecay.codecs.evc import EVC, EVCConfig
from maskdecay.codecs.evc._coding import compress, decompress
from maskdecay.codecs.evc._exact import TableScales, exact_priors, is_exact, scale_table, seal, self_test
from maskdecay.codecs.evc._layers import PriorBlock
from torch import nn

import maskdecay as md

CONFIG = EVCConfig(latent=16, encoder=(8, 8, 8, 16), decoder=(8, 8, 8, 16))
PRIORS = ("hyper_dec", "y_prior_fusion", "y_spatial_prior")


def make_codec(seed=0):
    """Random weights with latents, hyper-latents and priors that are neither all zero nor huge."""
    torch.manual_seed(seed)
    codec = EVC(CONFIG).eval()
    with torch.no_grad():
        codec.get_parameter("hyper_enc.3.weight").mul_(20)
        for path, gain in (("hyper_dec.2.block.1.conv.2.weight", 8), ("y_prior_fusion.1.block.0.conv2.weight", 8)):
            codec.get_parameter(path).mul_(gain)
        codec.get_parameter("y_prior_fusion.1.block.0.conv2.bias")[16:32] += 3
        codec.get_parameter("y_spatial_prior.2.block.0.conv2.bias").add_(2)
    return codec


def make_images(count=2, size=64):
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(count, 3, size // 8, size // 8, generator=generator)
    return list(nn.functional.interpolate(coarse, size=(size, size), mode="bilinear"))


def prune_priors(codec, keep):
    """Leave `keep` channels inside every block of the priors, as shrink does."""
    pruned = copy.deepcopy(codec)
    for block in (m for name in PRIORS for m in getattr(pruned, name).modules() if isinstance(m, PriorBlock)):
        spatial, mix = block.block[0], block.block[1].conv
        for layer in (spatial.conv1[0], spatial.depth_conv, mix[0]):
            layer.weight.data, layer.bias.data = layer.weight.data[:keep], layer.bias.data[:keep]
            layer.out_channels = keep
        spatial.depth_conv.in_channels = spatial.depth_conv.groups = keep
        for layer in (spatial.conv2, mix[2]):
            layer.weight.data, layer.in_channels = layer.weight.data[:, :keep], keep
    return pruned


@pytest.fixture(scope="module")
def codec():
    return make_codec()


@pytest.fixture(scope="module")
def exact(codec):
    return exact_priors(codec, make_images(), rates=(0, 63))


@pytest.fixture
def restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@torch.no_grad()
def parameters_of(codec, z_hat, known):
    """All that the coder sees, for given hyper-latents and first-step values."""
    fused = codec.fused_prior(z_hat)
    return fused, codec.y_spatial_prior(torch.cat([known, fused], 1))


def inputs(batch=1):
    generator = torch.Generator().manual_seed(4)
    z_hat = (torch.randn(batch, 16, 3, 4, generator=generator) * 4).round()
    return z_hat, (torch.randn(batch, 16, 12, 16, generator=generator) * 5 * 64).round() / 64


class TestScaleTable:
    def test_it_holds_the_nearest_scale_in_the_logarithm(self):
        table, scales = scale_table().double(), table_scales()
        assert table[0] == np.float32(SCALE_MIN)
        assert table[-1] == SCALE_MAX
        for place in (452, 1000, 4096, 12345, 100_000, 262_000):
            nearest = np.abs(np.log(scales) - math.log(place / 4096)).argmin()
            assert table[place] == np.float32(scales[nearest])

    def test_no_machine_can_round_a_threshold_or_a_scale_otherwise(self):
        """Both come from powers in float64, whose last bits may differ; no rounding hangs on those."""
        ratio = SCALE_MAX / SCALE_MIN
        middles = SCALE_MIN * ratio ** ((np.arange(LEVELS - 1) + 0.5) / (LEVELS - 1)) * 4096
        assert np.abs(middles - np.rint(middles)).min() > 1e-6
        for scale in map(float, table_scales()[1:-1]):
            single = np.float32(scale)
            for other in (np.nextafter(single, np.float32(0)), np.nextafter(single, np.float32(99))):
                tie = (Fraction(float(single)) + Fraction(float(other))) / 2
                assert abs(float((Fraction(scale) - tie) / tie)) > 1e-13

    def test_the_coder_finds_the_same_table_with_room_to_spare(self):
        scales = torch.from_numpy(table_scales()).float()
        for nudge in (1 - 1e-4, 1.0, 1 + 1e-4):
            assert scale_indices(scales * nudge).tolist() == list(range(LEVELS))

    def test_only_scales_are_replaced(self):
        params = torch.tensor([0.3, -1.0, 1.0, 500.0, 0.7, 0.9]).view(1, 6, 1, 1)
        q_step, low, one, high, *means = TableScales(3, (1,))(params[:, [0, 1, 2, 3, 4, 5]]).flatten().tolist()
        assert (q_step, means) == (pytest.approx(0.3), pytest.approx([0.7, 0.9]))
        assert low == pytest.approx(-1.0)
        assert one == pytest.approx(1.0, rel=0.0126)
        assert high == SCALE_MAX


class TestSameInterface:
    @torch.no_grad()
    def test_nearly_the_rate_and_the_picture_of_the_float_codec(self, codec, exact):
        x = torch.stack(make_images())
        ours, theirs = exact(x), codec(x)
        assert theirs.bits_y.min() > 500  # there is something to compare
        assert float(ours.bits_y.sum()) == pytest.approx(float(theirs.bits_y.sum()), rel=0.02)
        assert torch.equal(ours.bits_z, theirs.bits_z)

    def test_the_float_codec_stays_as_it_is(self, codec):
        before = copy.deepcopy(codec.state_dict())
        result = exact_priors(codec, make_images(1), rates=(63,))
        assert all(torch.equal(value, before[name]) for name, value in codec.state_dict().items())
        assert is_exact(result)
        assert not is_exact(codec)
        assert not result.training

    def test_scales_are_those_of_the_tables(self, exact):
        fused, refined = parameters_of(exact, *inputs())
        tables = set(torch.from_numpy(table_scales()).float().tolist())
        scales = torch.cat([fused.chunk(3, 1)[1], *refined.chunk(4, 1)[::2]], 1)
        assert set(scales.flatten().tolist()) <= tables
        assert len(scales.unique()) > 5

    def test_means_and_steps_are_fixed_point(self, exact):
        fused, refined = parameters_of(exact, *inputs())
        for name, numbers in (
            ("y_prior_fusion", torch.cat(fused.chunk(3, 1)[::2], 1)),
            ("y_spatial_prior", torch.cat(refined.chunk(4, 1)[1::2], 1)),
        ):
            units = numbers * getattr(exact, name).per_unit
            assert torch.equal(units, units.round())
            assert units.abs().max() < 2**22  # so that adding a symbol of some hundreds is exact
            assert len(units.unique()) > 50

    @torch.no_grad()
    def test_pruned_priors_convert(self, codec):
        pruned = prune_priors(codec, 5)
        exact = exact_priors(pruned, make_images(1), rates=(63,))
        assert exact.get_parameter("y_spatial_prior.network.0.block.1.conv.0.weight").shape[0] == 5
        x = torch.stack(make_images())
        assert float(exact(x).bits_y.sum()) == pytest.approx(float(pruned(x).bits_y.sum()), rel=0.1)

    def test_a_second_conversion_is_refused(self, exact):
        with pytest.raises(ValueError, match="exact already"):
            exact_priors(exact, make_images(1), rates=(63,))

    def test_float_priors_have_no_self_test(self, codec):
        for act in (seal, self_test):
            with pytest.raises(ValueError, match="make an exact copy with exact_priors first"):
                act(codec)


class TestSameFile:
    def test_parameters_agree_to_the_bit(self, exact, restore_threads):
        z_hat, known = inputs()
        expected = parameters_of(exact, z_hat, known)
        batch = [t.repeat(5, 1, 1, 1) for t in (z_hat, known)]
        cases = {
            "channels_last": parameters_of(exact, *(t.to(memory_format=torch.channels_last) for t in (z_hat, known))),
            "batch": [t[:1] for t in parameters_of(exact, *batch)],
            "float64": parameters_of(copy.deepcopy(exact).double(), z_hat.double(), known.double()),
        }
        torch.set_num_threads(2)
        cases["threads"] = parameters_of(exact, z_hat, known)
        cases["threads, batch"] = [t[-1:] for t in parameters_of(exact, *batch)]
        for name, case in cases.items():
            assert all(torch.equal(a.float(), b) for a, b in zip(case, expected, strict=True)), name

    @pytest.mark.filterwarnings("ignore:TF32 acceleration")
    def test_a_file_decodes_under_other_conditions(self, exact, restore_threads):
        image = make_images(1)[0][None]
        torch.set_num_threads(1)
        streams = compress(exact, image)
        assert streams.byte_count > 100
        expected = exact(image)
        torch.set_num_threads(2)
        other = copy.deepcopy(exact).to(memory_format=torch.channels_last)
        with torch.backends.mkldnn.flags(enabled=False):  # type: ignore[attr-defined]
            torch.testing.assert_close(decompress(other, streams), expected.x_hat, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            decompress(copy.deepcopy(exact).double(), streams).float(), expected.x_hat, rtol=1e-4, atol=1e-4
        )

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_a_file_decodes_on_a_gpu(self, exact):
        image = make_images(1)[0][None]
        there = copy.deepcopy(exact).cuda()
        self_test(there)
        expected = [t.cuda() for t in parameters_of(exact, *inputs())]
        assert all(
            torch.equal(a, b)
            for a, b in zip(parameters_of(there, *(t.cuda() for t in inputs())), expected, strict=True)
        )
        torch.testing.assert_close(
            decompress(there, compress(exact, image)).cpu(), exact(image).x_hat, rtol=1e-3, atol=1e-3
        )

    @torch.no_grad()
    def test_hyper_latents_beyond_the_operands_are_clamped_alike(self, exact):
        z_hat, _ = inputs()
        assert torch.equal(exact.fused_prior(z_hat.sign() * 300), exact.fused_prior(z_hat.sign() * 9000))
        assert not torch.equal(exact.fused_prior(z_hat.sign() * 200), exact.fused_prior(z_hat.sign() * 250))


class TestTraining:
    def test_the_same_numbers_and_gradients_for_all(self, exact):
        trained = copy.deepcopy(exact).train()
        z_hat, known = (t.requires_grad_() for t in inputs())
        fused = trained.fused_prior(z_hat)
        refined = trained.y_spatial_prior(torch.cat([known, fused], 1))
        for ours, theirs in zip((fused, refined), parameters_of(exact, z_hat, known), strict=True):
            assert torch.equal(ours, theirs)
        (fused.square().mean() + refined.square().mean()).backward()
        for name in PRIORS:
            for path, p in getattr(trained, name).named_parameters():
                assert p.grad is not None, f"{name}.{path}"
                assert p.grad.abs().sum() > 0, f"{name}.{path}"

    def test_scales_below_the_least_can_climb_but_not_sink(self):
        for gradient, passed in ((1.0, 0.0), (-1.0, -1.0)):
            params = torch.full((1, 3, 1, 1), -2.0, requires_grad=True)
            TableScales(3, (1,))(params).backward(torch.full((1, 3, 1, 1), gradient))
            assert params.grad is not None
            assert params.grad.flatten().tolist() == [gradient, passed, gradient]

    def test_training_is_told_of_numbers_that_are_not_finite(self, exact):
        trained = copy.deepcopy(exact).train()
        trained.get_parameter("y_prior_fusion.network.0.block.0.conv2.weight").data[0, 0] = torch.nan
        assert not torch.isfinite(trained(torch.stack(make_images())).bits_y).all()

    def test_a_step_of_training_lowers_the_rate_and_stays_exact(self, exact):
        trained = copy.deepcopy(exact).train()
        x = make_images(1)[0][None]
        optimizer = torch.optim.Adam([p for name in PRIORS for p in getattr(trained, name).parameters()], lr=1e-3)
        bits = []
        for _ in range(5):
            torch.manual_seed(0)
            loss = trained(x).bits_y.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bits.append(loss.item())
        assert bits[-1] < 0.95 * bits[0]
        trained.eval()
        with pytest.raises(RuntimeError, match="self-test failed"):
            self_test(trained)
        before = parameters_of(trained, *inputs())
        seal(trained)
        self_test(trained)
        assert all(torch.equal(a, b) for a, b in zip(parameters_of(trained, *inputs()), before, strict=True))


class TestSaving:
    def test_a_state_dict_loads_into_a_codec_of_other_weights(self, exact):
        other = exact_priors(make_codec(seed=1), rates=(63,))
        other.load_state_dict(exact.state_dict())
        self_test(other)
        for ours, theirs in zip(parameters_of(other, *inputs()), parameters_of(exact, *inputs()), strict=True):
            assert torch.equal(ours, theirs)

    def test_one_changed_weight_is_noticed(self, exact):
        other = copy.deepcopy(exact)
        with torch.no_grad():
            other.get_parameter("y_prior_fusion.network.1.block.0.conv2.weight")[5, 3] += 0.3
        with pytest.raises(RuntimeError, match="self-test failed"):
            self_test(other)

    def test_maskdecays_files_hold_it_at_any_width(self, codec, tmp_path):
        small = exact_priors(prune_priors(codec, 7), make_images(1), rates=(63,))
        md.save(small, tmp_path / "small.safetensors")
        loaded = md.load(tmp_path / "small.safetensors", lambda: exact_priors(make_codec(seed=1), rates=(63,)))
        self_test(loaded)
        for ours, theirs in zip(parameters_of(loaded, *inputs()), parameters_of(small, *inputs()), strict=True):
            assert torch.equal(ours, theirs)
