"""Growing an ensemble: the order of stages, what stays, what is chosen, and going on after a stop."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import maskdecay as md

X = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
TARGET = X @ torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


class Trainer:
    """Fits sums of branches to a target; records the stages it saw."""

    def __init__(self, steps: int = 4, *, short: int = 0, stop_at: int | None = None) -> None:
        self.steps, self.short, self.stop_at = steps, short, stop_at
        self.seen: list[tuple[str, int, list[int]]] = []
        self.frozen: list[list[bool]] = []

    def __call__(self, ensemble: md.ResidualEnsemble, stage: md.GrowthStage) -> None:
        self.seen.append((stage.kind, stage.branch, [branch[0].out_features for branch in ensemble.branches]))
        self.frozen.append([not any(p.requires_grad for p in branch.parameters()) for branch in ensemble.branches])
        if stage.branch == self.stop_at:
            raise KeyboardInterrupt
        ensemble.train()
        optimizer = torch.optim.AdamW([p for p in ensemble.parameters() if p.requires_grad], lr=0.01)
        for _ in range((stage.steps or self.steps) - self.short):
            output = ensemble.all_depths(X) if stage.kind == "joint" else ensemble(X)
            ((output - TARGET).square().mean() + stage.extra_loss()).backward()
            optimizer.step()
            stage.after_step()
            optimizer.zero_grad()


class Shower:
    """Shows the masks some batches: of a branch those that `inputs` says, the same for all by default."""

    def __init__(self, inputs: dict[int, torch.Tensor] | None = None) -> None:
        self.inputs, self.branches = inputs or {}, []

    def __call__(self, ensemble, observe) -> None:
        self.branches.append(ensemble.depths - 1)
        ensemble.train()
        for part in self.inputs.get(ensemble.depths - 1, X).split(8):
            ensemble(part).square().sum().backward()
            observe()
            ensemble.zero_grad()


@pytest.fixture
def large() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def plan(large: nn.Module) -> md.Plan:
    return md.Plan.ratio(md.find_groups(large, X), 0.5)


def states_equal(left: nn.Module, right: nn.Module) -> bool:
    a, b = left.state_dict(), right.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


DECAY = md.DecayConfig(steps=5)


def test_stages_come_in_order_and_every_branch_becomes_small(large, plan):
    train, before = Trainer(), copy.deepcopy(large)
    ensemble = md.grow_ensemble(large, plan, depths=3, decay=DECAY, train=train)
    assert train.seen == [
        ("decay", 0, [8]), ("tune", 0, [4]),
        ("learn", 1, [4, 8]), ("decay", 1, [4, 8]), ("tune", 1, [4, 4]),
        ("learn", 2, [4, 4, 8]), ("decay", 2, [4, 4, 8]), ("tune", 2, [4, 4, 4]),
        ("joint", 2, [4, 4, 4]),
    ]  # fmt: skip
    assert train.frozen == [[False]] * 2 + [[True, False]] * 3 + [[True, True, False]] * 3 + [[False] * 3]
    assert states_equal(large, before)
    assert all(p.requires_grad and p.grad is None for p in ensemble.parameters())
    assert not ensemble.training
    assert not any(module._forward_pre_hooks for module in ensemble.modules())


def test_branches_that_are_done_stay_to_the_bit_statistics_of_norms_included(large, plan):
    kept = []
    md.grow_ensemble(
        large, plan, depths=3, decay=DECAY, train=Trainer(), on_branch=lambda e: kept.append(copy.deepcopy(e))
    )
    assert [ensemble.depths for ensemble in kept] == [1, 2, 3]
    assert states_equal(kept[0].branches[0], kept[2].branches[0])
    assert states_equal(kept[1].branches[1], kept[2].branches[1])
    assert not states_equal(kept[2].branches[0], kept[2].branches[1])


def test_each_further_branch_lowers_the_error(large, plan):
    errors = []

    @torch.no_grad()
    def note(ensemble: md.ResidualEnsemble) -> None:
        errors.append(float((copy.deepcopy(ensemble).eval()(X) - TARGET).square().mean()))

    slow = md.DecayConfig(steps=30)
    md.grow_ensemble(large, plan, depths=3, decay=slow, train=Trainer(steps=50), on_branch=note)
    assert errors[0] > errors[1] > errors[2]


def test_a_stopped_growth_goes_on_from_its_saved_branches(large, plan, tmp_path):
    path = tmp_path / "branches.safetensors"
    whole = md.grow_ensemble(large, plan, depths=3, decay=DECAY, train=Trainer())
    with pytest.raises(KeyboardInterrupt):
        md.grow_ensemble(
            large, plan, depths=3, decay=DECAY, train=Trainer(stop_at=2), on_branch=lambda e: md.save(e, path)
        )
    start = md.load(path, lambda: md.ResidualEnsemble([copy.deepcopy(large) for _ in range(2)]))
    before, train = copy.deepcopy(start), Trainer()
    resumed = md.grow_ensemble(large, plan, depths=3, decay=DECAY, train=train, start=start)
    assert [seen[:2] for seen in train.seen] == [("learn", 2), ("decay", 2), ("tune", 2), ("joint", 2)]
    assert states_equal(start, before)
    assert states_equal(resumed, whole)


def test_branches_that_are_all_done_go_to_the_joint_stage(large, plan):
    train, start = Trainer(), md.ResidualEnsemble([large, copy.deepcopy(large)])
    md.grow_ensemble(large, plan, depths=2, decay=DECAY, train=train, start=start)
    assert train.seen == [("joint", 1, [8, 8])]


def test_a_branch_that_was_cut_but_not_tuned_goes_on_with_that(large, plan, tmp_path):
    path = tmp_path / "branches.safetensors"

    class Stop(Trainer):
        def __call__(self, ensemble, stage):
            if (stage.kind, stage.branch) == ("tune", 1):
                md.save(ensemble, path)
            super().__call__(ensemble, stage)

    whole = md.grow_ensemble(large, plan, depths=3, decay=DECAY, train=Stop())
    train, start = Trainer(), md.load(path, lambda: md.ResidualEnsemble([copy.deepcopy(large) for _ in range(2)]))
    resumed = md.grow_ensemble(large, plan, depths=3, decay=DECAY, train=train, start=start, tuned=False)
    assert [seen[:2] for seen in train.seen[:2]] == [("tune", 1), ("learn", 2)]
    assert train.frozen[0] == [True, False]
    assert states_equal(resumed, whole)
    with pytest.raises(ValueError, match="start has no branch that is still to tune"):
        md.grow_ensemble(large, plan, depths=3, decay=DECAY, train=train, tuned=False)


def test_a_decay_that_was_stopped_half_way_goes_on_from_its_state(large, plan):
    kept: dict = {}

    class Stop(Trainer):
        def __call__(self, ensemble, stage):
            if stage.kind == "decay":
                for number in range(stage.steps):
                    if number == 3:
                        kept.update(network=copy.deepcopy(ensemble.state_dict()), decay=stage.decay.state_dict())
                    stage.after_step()

    class GoOn(Trainer):
        def __call__(self, ensemble, stage):
            if stage.kind == "decay":
                stage.decay.load_state_dict(kept["decay"])
                ensemble.load_state_dict(kept["network"])
                for _ in range(stage.steps - 3):
                    stage.after_step()

    whole = md.grow_ensemble(large, plan, depths=1, decay=DECAY, train=Stop())
    assert states_equal(md.grow_ensemble(large, plan, depths=1, decay=DECAY, train=GoOn()), whole)


def test_fisher_sees_batches_before_each_branch_and_decides(large, plan):
    with torch.no_grad():  # channels 4 to 7 do nothing, whatever their large weights before the ReLU
        large[3].weight[:, 4:] *= 1e-3
        large[0].weight[4:] *= 1e6
        large[3].weight[:, :4] += 1
    show, kept = Shower(), []
    config = md.DecayConfig(steps=5, importance="fisher")

    def note(ensemble: md.ResidualEnsemble, stage: md.GrowthStage) -> None:
        if stage.kind == "tune" and stage.branch == 0:
            kept.append(ensemble.branches[0][3].weight.detach().clone())
        if stage.kind == "decay":
            for _ in range(5):
                stage.after_step()

    md.grow_ensemble(large, plan, depths=2, decay=config, train=note, show=show)
    assert show.branches == [0, 1]
    assert torch.equal(kept[0], large[3].weight[:, :4])


def idle(ensemble: md.ResidualEnsemble, stage: md.GrowthStage) -> None:
    """Trains nothing."""
    for _ in range(stage.steps or 0):
        stage.after_step()


def kept_channels(large: nn.Module, ensemble: md.ResidualEnsemble) -> list[list[int]]:
    """Which rows of the large network's first layer each branch keeps, where nothing was trained."""
    rows = large[0].weight.detach().tolist()
    return [[rows.index(row) for row in branch[0].weight.detach().tolist()] for branch in ensemble.branches]


@pytest.mark.parametrize("cuts", [False, True], ids=["decay", "cut"])
def test_each_branch_keeps_the_channels_that_its_own_batches_tell(cuts):
    """Of eight channels, each of which reads one of eight inputs, those whose inputs are not zero matter."""
    large = nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        large[0].weight.copy_(torch.eye(8))
    inputs = torch.rand(16, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    plan = md.Plan.ratio(md.find_groups(large, inputs), 0.5)
    first, second = torch.tensor([1.0] * 4 + [0.0] * 4), torch.tensor([0.0, 1, 0, 1, 0, 1, 0, 1])
    batches = {0: inputs * first, 1: inputs * second}
    decay = md.Cut(batches=[inputs], importance="fisher") if cuts else md.DecayConfig(steps=2, importance="fisher")
    words = {"depths": 3, "decay": decay, "train": idle}
    ensemble = md.grow_ensemble(large, plan, **words, show=Shower({**batches, 2: batches[0]}))
    expected = [[0, 1, 2, 3], [1, 3, 5, 7], [0, 1, 2, 3]]
    assert kept_channels(large, ensemble) == expected
    for done in (1, 2):  # going on behind branches that are done makes the same choices
        start, show = md.ResidualEnsemble(ensemble.branches[:done]), Shower({**batches, 2: batches[0]})
        resumed = md.grow_ensemble(large, plan, **words, show=show, start=start)
        assert show.branches == [1, 2][done - 1 :]
        assert kept_channels(large, resumed) == expected
        assert states_equal(resumed, ensemble)


def test_channels_are_chosen_before_a_branch_learns():
    large = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():  # rows of norm 1, which differ; what reads them decides
        large[0].weight.copy_(nn.functional.normalize(torch.arange(32.0).view(8, 4), dim=1))
        large[2].weight.copy_(torch.arange(8.0, 0.0, -1.0).expand(3, 8))

    def turn_round(ensemble: md.ResidualEnsemble, stage: md.GrowthStage) -> None:
        if stage.kind == "learn":
            weight = ensemble.branches[-1][2].weight.data
            weight.copy_(weight.flip(1))
        idle(ensemble, stage)

    plan = md.Plan.ratio(md.find_groups(large, X), 0.5)
    ensemble = md.grow_ensemble(large, plan, depths=2, decay=DECAY, train=turn_round)
    assert kept_channels(large, ensemble) == [[0, 1, 2, 3]] * 2
    assert ensemble.branches[1][2].weight[0].tolist() == [1, 2, 3, 4]


def test_showing_batches_changes_no_branch(large, plan):
    """Not even running means, which the hook's training mode moves in its copy."""
    seen = []
    wanted = copy.deepcopy(large.state_dict())

    def look(ensemble: md.ResidualEnsemble, stage: md.GrowthStage) -> None:
        if stage.kind == "decay":
            seen.append({name: value.clone() for name, value in ensemble.branches[-1].state_dict().items()})
            assert all(parameter.grad is None for parameter in ensemble.parameters())
        idle(ensemble, stage)

    config = md.DecayConfig(steps=2, importance="taylor")
    md.grow_ensemble(large, plan, depths=2, decay=config, train=look, show=lambda e, _: e.train()(X).sum().backward())
    assert len(seen) == 2
    assert all(torch.equal(state[name], wanted[name]) for state in seen for name in wanted if name in state)
    assert {"1.running_mean"} <= set(seen[0]) & set(wanted)


def test_a_function_tells_how_each_branch_becomes_small(large, plan):
    asked, train = [], Trainer(steps=1)

    def how(branch: int) -> md.DecayConfig | md.Cut:
        asked.append(branch)
        return md.DecayConfig(steps=5) if branch else md.Cut(batches=list(X.split(8)))

    md.grow_ensemble(large, plan, depths=2, decay=how, train=train)
    assert asked == [0, 1]
    assert [seen[:2] for seen in train.seen] == [("tune", 0), ("learn", 1), ("decay", 1), ("tune", 1), ("joint", 1)]
    with pytest.raises(ValueError, match=r"importance 'fisher' .*pass show="):
        md.grow_ensemble(
            large, plan, depths=1, decay=lambda _: md.DecayConfig(steps=5, importance="fisher"), train=train
        )


def test_branches_that_are_cut_at_once_are_refitted_and_only_tuned(large, plan):
    batches, train = list(X.split(8)), Trainer(steps=0)
    first, second = torch.arange(8.0), torch.tensor([0.0, 1, 2, 6, 3, 4, 5, 7])

    def show(ensemble: md.ResidualEnsemble, observe) -> None:
        """Lets the second branch keep one other channel than the others do."""
        mask = next(value for name, value in ensemble.named_parameters() if value.shape == (8,) and "mask" in name)
        mask.grad = (second if ensemble.depths == 2 else first).clone()
        observe()

    cut = md.Cut(batches=batches, importance="fisher")
    ensemble = md.grow_ensemble(large, plan, depths=3, decay=cut, train=train, show=show)
    assert train.seen == [("tune", 0, [4]), ("tune", 1, [4, 4]), ("tune", 2, [4, 4, 4]), ("joint", 2, [4, 4, 4])]
    masked = copy.deepcopy(large)
    masks = md.insert_masks(masked, plan)
    masks.set_scores({name: first if len(mask) == 8 else torch.ones(len(mask)) for name, mask in masks.items()})
    masks.collapse("given")
    with torch.no_grad():
        wanted = large.eval()(X)
        cut = (masked.eval()(X) - wanted).square().mean()
        errors = [(ensemble(X, depth=depth) - wanted).square().mean() for depth in (1, 2, 3)]
    assert errors[0] < 0.5 * cut
    assert errors[1] < 0.5 * errors[0]
    md.refit(masked, masks, batches)
    assert states_equal(ensemble.branches[0], md.shrink(masked, masks))


def test_a_cut_says_how_its_branches_run_and_what_chooses_channels(large, plan):
    show, ran = Shower(), []

    def run(branch: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        ran.append(type(branch))
        return branch(batch["x"])

    cut = md.Cut(batches=[{"x": X}], run=run, importance="fisher")
    with pytest.raises(ValueError, match=r"importance 'fisher' .*pass show="):
        md.grow_ensemble(large, plan, depths=1, decay=cut, train=idle)
    ensemble = md.grow_ensemble(large, plan, depths=2, decay=cut, train=idle, show=show)
    assert show.branches == [0, 1]
    md.grow_ensemble(large, plan, depths=2, decay=cut, train=idle, show=show, start=ensemble, tuned=False)
    assert show.branches == [0, 1], "nothing is left to choose"
    assert set(ran) == {nn.Sequential, md.ResidualEnsemble}


def test_branches_whose_output_is_no_refitted_layers_are_cut_all_the_same():
    torch.manual_seed(0)
    large = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Tanh())
    plan = md.Plan.ratio(md.find_groups(large, X), 0.5)
    ensemble = md.grow_ensemble(large, plan, depths=2, decay=md.Cut(batches=[X]), train=idle)
    assert [branch[0].out_features for branch in ensemble.branches] == [4, 4]


def test_a_hook_that_skips_a_step_in_ten_is_helped_and_a_lazy_one_refused(large, plan):
    ten = md.DecayConfig(steps=10)
    ensemble = md.grow_ensemble(large, plan, depths=1, decay=ten, train=Trainer(short=1))
    assert ensemble.branches[0][0].out_features == 4
    with pytest.raises(ValueError, match=r"branch 0: the training hook called stage.after_step\(\) 8 times"):
        md.grow_ensemble(large, plan, depths=1, decay=ten, train=Trainer(short=2))


def test_what_cannot_be_done_is_refused_before_any_training(large, plan):
    def never(ensemble, stage):
        raise AssertionError

    with pytest.raises(ValueError, match=r"importance 'fisher' .*pass show="):
        md.grow_ensemble(large, plan, depths=2, decay=md.DecayConfig(steps=5, importance="fisher"), train=never)
    with pytest.raises(ValueError, match=r"importance 'fisher' .*pass show="):
        md.grow_ensemble(
            large,
            plan,
            depths=2,
            decay=md.Cut(batches=[X], importance="fisher"),
            train=never,
            start=md.ResidualEnsemble([large]),
            tuned=False,
        )
    with pytest.raises(ValueError, match="depths=1 with 2 branches done"):
        md.grow_ensemble(
            large, plan, depths=1, decay=DECAY, train=never, start=md.ResidualEnsemble([large, copy.deepcopy(large)])
        )
    with pytest.raises(ValueError, match="select='rerank': a branch's channels are chosen before it learns"):
        md.grow_ensemble(large, plan, depths=2, decay=md.DecayConfig(steps=5, select="rerank"), train=never)
    with pytest.raises(ValueError, match="made for another model"):
        md.grow_ensemble(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)), plan, depths=1, decay=DECAY, train=never)
