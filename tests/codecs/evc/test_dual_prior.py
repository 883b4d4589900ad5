import torch
from maskdecay.codecs.evc._dual_prior import FusedPrior, code_two_steps, first_step_positions, split_fused
from torch import Tensor


def prior(q_step: float, scales: float, means: float) -> FusedPrior:
    return FusedPrior(*(torch.full((1, 2, 2, 2), value) for value in (q_step, scales, means)))


def refine(context: Tensor) -> Tensor:
    """Constant planes in the published order: scales_0, means_0, scales_1, means_1."""
    assert context.shape == (1, 8, 2, 2)
    return torch.tensor([10.0, 20.0, 30.0, 40.0]).view(1, 4, 1, 1).expand(1, 4, 2, 2)


def test_first_step_positions_by_hand() -> None:
    positions = first_step_positions(torch.zeros(1, 4, 2, 3)).int()
    even, odd = [[1, 0, 1], [0, 1, 0]], [[0, 1, 0], [1, 0, 1]]
    assert positions.tolist() == [[even, even, odd, odd]]


def test_split_fused_orders_step_scales_means_and_bounds_the_step() -> None:
    params = torch.tensor([0.1, 2.0, 3.0, 4.0, 5.0, 6.0]).view(1, 6, 1, 1)
    fused = split_fused(params)
    assert fused.q_step.flatten().tolist() == [0.5, 2.0]
    assert fused.scales.flatten().tolist() == [3.0, 4.0]
    assert fused.means.flatten().tolist() == [5.0, 6.0]


def test_chunk_order_and_positions_of_both_steps() -> None:
    coded = code_two_steps(prior(1.0, 1.0, 2.0), refine, lambda scales, means, positions: means + 100)
    # half 0: step 1 on the diagonal, the rest with means_0; half 1 the other way round with means_1
    assert coded.means[0].tolist() == [[[2, 20], [20, 2]], [[40, 2], [2, 40]]]
    assert coded.scales[0].tolist() == [[[1, 10], [10, 1]], [[30, 1], [1, 30]]]
    assert torch.equal(coded.values, coded.means + 100)


def test_context_of_the_second_step_holds_only_what_the_first_decoded() -> None:
    seen: list[Tensor] = []

    def spy(context: Tensor) -> Tensor:
        seen.append(context)
        return refine(context)

    code_two_steps(prior(3.0, 5.0, 4.0), spy, lambda scales, means, positions: torch.full_like(means, 7.0))
    decoded, means, scales, q_step = seen[0].chunk(4, 1)
    assert decoded[0].tolist() == [[[7, 0], [0, 7]], [[0, 7], [7, 0]]]
    assert (means.unique().item(), scales.unique().item(), q_step.unique().item()) == (4, 5, 3)


def test_callback_is_told_disjoint_positions_that_cover_everything() -> None:
    told: list[Tensor] = []

    def code(scales: Tensor, means: Tensor, positions: Tensor) -> Tensor:
        told.append(positions)
        return means

    code_two_steps(prior(1.0, 1.0, 1.0), refine, code)
    assert len(told) == 2
    assert torch.equal(told[0], ~told[1])


def test_decoder_with_symbols_alone_repeats_the_encoder() -> None:
    """A decoder's callback that reads symbols reaches the encoder's values exactly."""
    torch.manual_seed(0)
    fused = FusedPrior(*(torch.rand(1, 2, 2, 2) for _ in range(3)))
    weights = torch.randn(4, 8, 1, 1)
    spatial = lambda context: torch.nn.functional.conv2d(context, weights)
    y = torch.randn(1, 2, 2, 2) * 5
    stream: list[Tensor] = []

    def write(scales: Tensor, means: Tensor, positions: Tensor) -> Tensor:
        symbols = (y - means).round()
        stream.append(symbols[positions.expand_as(symbols)])
        return symbols + means

    def read(scales: Tensor, means: Tensor, positions: Tensor) -> Tensor:
        symbols = torch.full_like(means, torch.nan)
        symbols[positions.expand_as(symbols)] = stream.pop(0)
        return symbols + means

    encoded = code_two_steps(fused, spatial, write)
    assert torch.equal(code_two_steps(fused, spatial, read).values, encoded.values)
