"""The experiment's machinery: every arm ends at the planned widths, runs resume, and the report adds nothing."""

import importlib
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import maskdecay as md

FOLDER = Path(__file__).parents[2] / "benchmarks" / "mask_decay"
NAMES = ("tasks", "methods", "library_pruners", "runs", "run", "measures", "plots", "report")


@pytest.fixture(scope="module")
def lab():
    """The scripts, as modules by name; they are no package, so the folder goes on the path."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield type("Lab", (), {name: importlib.import_module(name) for name in NAMES})
    finally:
        sys.path.remove(str(FOLDER))
        for name in NAMES:
            sys.modules.pop(name, None)


class Tiny:
    """A task of a few milliseconds: three convolutions, two of them with batch norms, learn to copy."""

    name = "tiny"

    def __init__(self, budget, groups=None, trained=None):
        self.budget, self.groups, self.trained, self.fits = budget, groups, trained, []

    def trained_teacher(self):
        return None if self.trained is None else self.teacher(self.trained).eval()

    def teacher(self, seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
                nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 1),
            )  # fmt: skip

    def plan(self, target):
        return md.Plan(groups=self.groups, keep={"0": 3, "3": 2})

    def fresh(self, plan, seed):
        model = self.teacher(seed)
        masks = md.insert_masks(model, plan)
        masks.collapse()
        return md.shrink(model, masks)

    def fit(self, model, stage, seed, *, extra_loss=None, after_step=None):
        self.fits.append((stage.steps, seed))
        optimizer = torch.optim.Adam(model.parameters(), lr=stage.learning_rate)
        generator = torch.Generator().manual_seed(seed)
        model.train()
        for _ in range(stage.steps):
            x = torch.rand(2, 3, 6, 6, generator=generator)
            optimizer.zero_grad(set_to_none=True)
            loss = (model(x) - x).square().mean()
            (loss if extra_loss is None else loss + extra_loss()).backward()
            optimizer.step()
            if after_step is not None:
                after_step()
        model.eval()

    def add_gradients(self, model, seed, after_batch=None):
        x = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
        (model(x) - x).square().mean().backward()
        if after_batch is not None:
            after_batch()

    def refit(self, model, masks, seed):
        md.refit(model, masks, [torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed))])

    @torch.no_grad()
    def evaluate(self, model, split):
        x = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(9))
        loss = float((model(x) - x).square().mean())
        return {"accuracy": 100 * math.exp(-loss), "loss": loss, "score": -loss}

    def macs(self, model):
        return float(sum(p.numel() for p in model.parameters()))

    def manifest(self):
        return {"name": "random"}


@pytest.fixture(scope="module")
def groups():
    return md.find_groups(Tiny(None).teacher(0), torch.rand(2, 3, 6, 6))


@pytest.fixture
def task(lab, groups):
    stage = lab.tasks.Stage(steps=1, learning_rate=0.01)
    return Tiny(lab.tasks.Budget(steps=12, narrowing=0.5, scratch=stage, narrow=stage, tune=stage), groups)


def widths(model):
    return [m.out_channels for m in model if isinstance(m, nn.Conv2d)]


ARMS = (
    "decay-none", "decay-evc", "decay-l1", "decay-l2", "decay-log_sum", "decay-transformed_l1", "decay-evc-taylor",
    "decay-evc-rerank", "decay-evc-norm", "schedule", "alone-evc", "alone-l2", "slimming-l1", "magnitude", "taylor",
    "fisher", "magnitude-refit", "fisher-refit", "tp-groupnorm", "tp-bnscale", "tp-growing",
)  # fmt: skip


@pytest.mark.parametrize("importance", ["weight_norm", "fisher"])
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_ends_at_the_planned_widths_and_spends_half_of_the_budget(lab, task, arm, importance):
    job = lab.methods.Job(
        task=task, model=task.teacher(1), plan=task.plan("small"), strength=0.05, seed=5, importance=importance
    )
    student = lab.methods.methods()[arm](job)
    assert widths(student) == [3, 2, 3]
    assert not any(torch.nn.utils.parametrize.is_parametrized(m) for m in student.modules())
    assert task.fits == [(3, 5), (3, 6)]
    assert all(p.requires_grad for p in student.parameters())


def test_every_arm_that_a_config_names_exists(lab):
    known = {*lab.methods.methods(), "teacher", "teacher-half", "scratch", "scratch-half", "scratch-macs"}
    for name in ("classifier.toml", "codec.toml", "codec_trained.toml"):
        config = lab.run.tomllib.loads((FOLDER / name).read_text(encoding="utf-8"))
        runs = lab.runs.expand(config)
        assert {run.arm for run in runs} <= known
        assert not {r.seed for r in runs if r.tuned is not None} & {r.seed for r in runs if r.tuned is None}
        lab.runs.make_budget(config["budget"])


def test_the_plain_schedule_falls_evenly_to_zero(lab, task):
    assert [lab.methods.falling_factor(step, 4) for step in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    seen = []

    def fit(model, stage, seed, *, extra_loss=None, after_step=None):
        assert extra_loss is None
        for _ in range(stage.steps if after_step is not None else 0):
            after_step()
            seen.append(sorted({round(float(v), 4) for m in masks(model) for v in m.mask}))

    def masks(model):
        return [link for m in model.modules() if hasattr(m, "parametrizations") for link in m.parametrizations.weight]

    task.fit = fit
    lab.methods.plain_schedule(
        lab.methods.Job(task=task, model=task.teacher(1), plan=task.plan("small"), strength=1.0, seed=5)
    )
    assert seen == [[0.6667, 1.0], [0.3333, 1.0], [0.0, 1.0]]


def test_a_loss_alone_leaves_kept_masks_at_one_and_moves_the_others(lab, task):
    model, plan, found = task.teacher(1), task.plan("small"), {}
    inner = task.fit

    def fit(model, stage, seed, **hooks):
        inner(model, stage, seed, **hooks)
        found.setdefault("masks", {n: m.detach().clone() for n, m in lab_masks(model).items()})

    from maskdecay._masks import masks_of as lab_masks

    task.fit = fit
    lab.methods.alone(lab.methods.Job(task=task, model=model, plan=plan, strength=0.5, seed=5), loss="l1")
    assert {name: int((mask == 1).sum()) for name, mask in found["masks"].items()} == {"0": 3, "3": 2}
    assert all(bool((mask[mask != 1] < 1).all()) for mask in found["masks"].values())


def test_library_groups_are_those_of_the_librarys_own_trace(lab, task):
    tp = pytest.importorskip("torch_pruning")
    model = task.teacher(1)
    own = tp.pruner.GroupNormPruner(
        model, torch.rand(2, 3, 6, 6), tp.importance.GroupMagnitudeImportance(), reg=0.1, ignored_layers=[model[6]]
    )
    ours = lab.library_pruners.build_pruner(model, task.plan("small"), "groupnorm", 0.1)
    pulls = []
    for pruner in (own, ours):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        pruner.regularize(model)
        pulls.append([p.grad.clone() for p in model.parameters()])
    assert max(float(p.abs().max()) for p in pulls[0]) > 0
    for left, right in zip(*pulls, strict=True):
        torch.testing.assert_close(left, right)


def test_a_pruners_penalty_as_a_loss_has_the_gradient_it_adds(lab, task):
    model = task.teacher(1)
    pruner = lab.library_pruners.build_pruner(model, task.plan("small"), "bnscale", 0.25)
    lab.library_pruners.as_loss(model, pruner).backward()
    assert torch.equal(model[1].weight.grad, torch.full((8,), 0.25))  # reg * sign(gamma), gamma = 1
    assert model[0].weight.grad is None


def test_bnscale_refuses_a_network_without_batch_norms(lab, task):
    bare = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    plan = md.Plan.ratio(md.find_groups(bare, torch.rand(1, 3, 4, 4)), 0.5)
    with pytest.raises(ValueError, match="needs a batch norm in every group; '0' has none"):
        lab.library_pruners.build_pruner(bare, plan, "bnscale", 0.1)


CONFIG = {
    "task": {},
    "budget": {"steps": 12},
    "grids": {"decay-*": [0.5, 0.1]},
    "wave": [
        {"tune": True, "seeds": [9], "targets": ["small"], "arms": ["decay-evc"]},
        {"seeds": [0], "targets": ["full"], "arms": ["teacher"]},
        {"seeds": [0], "targets": ["small"], "arms": ["scratch", "decay-evc", "scratch-macs"]},
    ],
}


def test_runs_resume_where_they_stopped_and_use_the_tuned_strength(lab, task, tmp_path):
    said = []
    made = lab.run.run_all(task, CONFIG, tmp_path, only="tune*", say=said.append)
    assert made == ["teacher-half.full.s9", "tune.0.5.decay-evc.small.s9", "tune.0.1.decay-evc.small.s9"]
    path = tmp_path / "runs" / "tune.0.1.decay-evc.small.s9.json"
    tried = json.loads(path.read_text())
    assert "test" not in tried
    path.write_text(json.dumps({**tried, "val": {"score": 1e6}}))  # so that this strength wins
    made = lab.run.run_all(task, CONFIG, tmp_path, say=said.append)
    names = [
        "teacher.full.s0",
        "scratch.small.s0",
        "teacher-half.full.s0",
        "decay-evc.small.s0",
        "scratch-macs.small.s0",
    ]
    assert made == names
    assert lab.run.run_all(task, CONFIG, tmp_path, say=said.append) == []
    run = json.loads((tmp_path / "runs" / "decay-evc.small.s0.json").read_text())
    assert (run["strength"], run["steps"], run["keep"]) == (0.1, 12, {"0": 3, "3": 2})
    macs = [task.macs(task.teacher(0)), run["macs"]]
    longer = json.loads((tmp_path / "runs" / "scratch-macs.small.s0.json").read_text())
    assert longer["steps"] == round((6 + 3) * macs[0] / macs[1] + 3)
    (tmp_path / "runs" / "scratch.small.s0.json").unlink()
    assert lab.run.run_all(task, CONFIG, tmp_path, say=said.append) == ["scratch.small.s0"]
    assert lab.run.run_all(task, CONFIG, tmp_path, dry_run=True, say=said.append) == []


def test_a_trained_teacher_costs_no_steps_and_is_every_seeds(lab, groups, tmp_path):
    stage = lab.tasks.Stage(steps=1, learning_rate=0.01)
    budget = lab.tasks.Budget(steps=12, narrowing=0.5, scratch=stage, narrow=stage, tune=stage, teacher=0.0)
    task = Tiny(budget, groups, trained=7)
    wave = {"seeds": [0, 1], "targets": ["small"], "arms": ["decay-none", "scratch"]}
    config = {**CONFIG, "wave": [wave, {"seeds": [0, 1], "targets": ["full"], "arms": ["teacher"]}]}
    made = lab.run.run_all(task, config, tmp_path, say=lambda line: None)
    assert "teacher-half.full.s0" not in made
    assert not (tmp_path / "teachers").exists()
    runs = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*.json")}
    assert {name: run["steps"] for name, run in runs.items()} == {
        "decay-none.small.s0": 12, "decay-none.small.s1": 12, "scratch.small.s0": 12, "scratch.small.s1": 12,
        "teacher.full.s0": 0, "teacher.full.s1": 0,
    }  # fmt: skip
    assert runs["teacher.full.s0"]["test"] == task.evaluate(task.teacher(7).eval(), "test")
    assert sorted(task.fits) == [(6, 1000), (6, 1001), (6, 1001), (6, 1002), (12, 0), (12, 1)]


def test_a_run_waits_for_its_tuning_and_time_ends_runs(lab, task, tmp_path):
    said = []
    assert lab.run.run_all(task, CONFIG, tmp_path, only="decay-evc.*", say=said.append) == ["teacher-half.full.s0"]
    assert said[-1].startswith("skip: decay-evc.small.s0 waits for 2 tuning runs")
    path = tmp_path / "runs" / "teacher-half.full.s0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 1e4}))
    assert lab.run.run_all(task, CONFIG, tmp_path, minutes=1, say=said.append) == []
    assert said[-1].startswith("stop: ")


def test_the_gap_by_hand(lab):
    gap = lab.measures.gap_narrowed
    assert gap(89.0, 88.0, 92.0, higher_is_better=True) == 25.0
    assert gap(5.0, 20.0, 0.0, higher_is_better=False) == 75.0  # BD-rates: 1 - 5 / 20
    assert gap(30.0, 20.0, 0.0, higher_is_better=False) == -50.0
    assert gap(91.0, 93.0, 92.0, higher_is_better=True) is None


def test_intervals_by_hand(lab):
    low, high = lab.measures.interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-5)
    assert lab.measures.paired([1.0, 1.2, 1.1]).endswith("*")
    assert not lab.measures.paired([1.0, -1.2, 1.1]).endswith("*")


def record(arm, target, seed, test, **more):
    return {
        "arm": arm, "target": target, "seed": seed, "tuned": None, "strength": None, "steps": 600, "macs": 50.0,
        "seconds": 6.0, "command": "c", "commit": "d", "machine": "m", "torch": "t", "threads": 1, "data": {"n": 1},
        "val": test, "test": test, **more,
    }  # fmt: skip


def test_the_classifiers_report_has_the_golden_numbers(lab):
    runs = [record("teacher", "full", s, {"accuracy": 92.0, "loss": 0.2}, macs=100.0) for s in (0, 1)]
    runs += [record("scratch", "half", s, {"accuracy": 88.0 + s, "loss": 0.4}) for s in (0, 1)]
    runs += [record("decay-evc", "half", s, {"accuracy": 90.0 + s, "loss": 0.3}, strength=0.1) for s in (0, 1)]
    runs += [record("teacher-half", "full", s, {"accuracy": 91.0, "loss": 0.3}, macs=100.0) for s in (0, 1)]
    runs += [record("scratch-half", "half", s, {"accuracy": 87.0 + s, "loss": 0.5}) for s in (0, 1)]
    text = lab.report.render(runs)
    row = next(line for line in text.splitlines() if line.startswith("| decay-evc"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "decay-evc",
        "2",
        "90.50 ± 0.71",
        "0.300 ± 0.000",
        "57",
        "86",
        "+2.00 [+2.00, +2.00] *",
        "",
        "",
        "0.1",
        "600",
    ]
    assert "| +0.100 [+0.100, +0.100] * |" in next(row for row in text.splitlines() if row.startswith("| scratch "))
    assert "50 MACs, 50.0% of the teacher's." in text
    assert "10 runs, 1 minutes" in text


def curve(factor):
    points = [(0.2, 28.0), (0.4, 30.0), (0.8, 32.0), (1.6, 34.0)]
    curve = [{"rate": 21.0 * i, "bpp": factor * b, "psnr": q, "cost": 1.0} for i, (b, q) in enumerate(points)]
    return {"curve": curve, "cost": factor}


def test_the_codecs_report_has_the_golden_numbers(lab, tmp_path):
    runs = [
        record("teacher", "full", 0, curve(1.0), macs=100.0),
        record("scratch", "small", 0, curve(1.2)),  # 20% more bits at every PSNR
        record("decay-evc", "small", 0, curve(1.1)),
        record("teacher-half", "full", 0, curve(1.05), macs=100.0),
        record("scratch-half", "small", 0, curve(1.3)),
    ]
    row = next(line for line in lab.report.render(runs).splitlines() if line.startswith("| decay-evc"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:8] == ["decay-evc", "1", "10.00", "50", "1.100", "50", "80", "-0.100 (one seed)"]
    assert [path.name for path in lab.plots.draw(runs, tmp_path)] == ["methods.png", "curves.png"]
