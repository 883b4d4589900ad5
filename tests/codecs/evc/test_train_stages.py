"""Stopping anywhere and going on, students, averages, half precision and watching, on tiny networks."""

import copy
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from maskdecay.codecs._average import Average
from maskdecay.codecs._train_board import Board
from maskdecay.codecs._train_checkpoint import Checkpoints
from maskdecay.codecs._train_hooks import Hooks, TrainingStopped
from maskdecay.codecs._train_state import State, loop_state
from maskdecay.codecs.evc import EVC, PRESETS, EVCCodec, EVCConfig, TrainConfig, evaluate, is_exact, self_test, train
from maskdecay.codecs.evc._objective import rate_distortion
from maskdecay.codecs.evc._rates import rate_to_lambda
from maskdecay.codecs.evc._students import StudentConfig, plan_student
from maskdecay.codecs.evc._train_decay import refit_on_crops
from maskdecay.codecs.evc._train_loop import Loop
from maskdecay.codecs.evc._train_objective import Objective
from maskdecay.codecs.evc._train_stages import train_stages
from maskdecay.codecs.evc._train_watch import RATES, Watch
from PIL import Image
from torch import nn

import maskdecay as md

TEACHER = EVCConfig(latent=8, encoder=(8, 8, 8, 8), decoder=(8, 8, 8, 8))
STUDENT = EVCConfig(latent=8, encoder=(4, 4, 8, 8), decoder=(4, 4, 4, 8))
CONFIG = TrainConfig(steps=7, batch_size=1, crop=64, optimizer="muon", ema=0.9)


@pytest.fixture
def teacher() -> EVC:
    torch.manual_seed(0)
    return EVC(TEACHER).eval()


@pytest.fixture
def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, 70, 80), generator=generator).byte() for _ in range(2)]


@pytest.fixture
def student(monkeypatch: pytest.MonkeyPatch) -> StudentConfig:
    monkeypatch.setitem(PRESETS, "thin", STUDENT)
    return StudentConfig(preset="thin", priors=0.5, decay_share=0.5)


def stopped(folder: Path, after: int, *words: object, **options: object) -> None:
    left = iter(range(after - 1, -1, -1))
    hooks = Hooks(checkpoints=Checkpoints(folder, {}, 1e9), stops=lambda: next(left) == 0)
    with pytest.raises(TrainingStopped):
        train_stages(*words, **options, hooks=hooks)  # type: ignore[arg-type]


def test_a_training_that_was_stopped_ends_the_same(teacher: EVC, images: list[torch.Tensor], tmp_path: Path) -> None:
    config = replace(CONFIG, steps=4)
    whole = train_stages(copy.deepcopy(teacher), images, config, exact=False)
    stopped(tmp_path / "c", 2, copy.deepcopy(teacher), images, config, exact=False)
    torch.manual_seed(123)
    hooks = Hooks(checkpoints=Checkpoints(tmp_path / "c", {}, 1e9), resume=True)
    again = train_stages(copy.deepcopy(teacher), images, config, exact=False, hooks=hooks)
    assert (again.steps, again.seconds > 0) == (4, True)
    assert all(map(torch.equal, whole.network.parameters(), again.network.parameters()))


@pytest.mark.parametrize("stops", [(2,), pytest.param((2, 3, 2), marks=pytest.mark.long)])
def test_a_student_that_was_stopped_in_any_stage_ends_the_same(
    teacher: EVC, images: list[torch.Tensor], student: StudentConfig, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    """Mask decay, fine-tuning and exact priors have 3, 3 and 1 steps; stops after so many of each run."""
    whole = train_stages(copy.deepcopy(teacher), images, CONFIG, student=student)
    assert list(whole.stage_steps.values()) == [3, 3, 1]
    folder = tmp_path / "c"
    stopped(folder, stops[0], copy.deepcopy(teacher), images, CONFIG, student=student)
    for more in stops[1:]:
        torch.manual_seed(123 + more)
        left = iter(range(more - 1, -1, -1))
        hooks = Hooks(checkpoints=Checkpoints(folder, {}, 1e9), resume=True, stops=lambda left=left: next(left) == 0)
        with pytest.raises(TrainingStopped):
            train_stages(copy.deepcopy(teacher), images, CONFIG, student=student, hooks=hooks)
    assert len(list(folder.iterdir())) == 3, "one base, one state and the index"
    hooks = Hooks(checkpoints=Checkpoints(folder, {}, 1e9), resume=True)
    again = train_stages(copy.deepcopy(teacher), images, CONFIG, student=student, hooks=hooks)
    assert again.stage_steps == whole.stage_steps
    expected, found = whole.network.state_dict(), again.network.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert is_exact(again.network)
    self_test(again.network)
    with pytest.raises(ValueError, match="exact already and cannot be pruned"):
        train_stages(again.network, images, CONFIG, student=student)


@pytest.mark.long
def test_a_student_that_is_cut_at_once_can_be_stopped_and_has_the_planned_widths(
    teacher: EVC, images: list[torch.Tensor], student: StudentConfig, tmp_path: Path
) -> None:
    config, cut = replace(CONFIG, steps=4), replace(student, decay_share=0.0)
    whole = train_stages(copy.deepcopy(teacher), images, config, student=cut, exact=False)
    assert whole.stage_steps == {"fine-tuning the student": 4}
    assert [len(whole.network.enc[k].conv1.weight) for k in (0, 2, 4)] == [4, 4, 8]
    stopped(tmp_path / "c", 2, copy.deepcopy(teacher), images, config, student=cut, exact=False)
    hooks = Hooks(checkpoints=Checkpoints(tmp_path / "c", {}, 1e9), resume=True)
    again = train_stages(copy.deepcopy(teacher), images, config, student=cut, exact=False, hooks=hooks)
    assert all(map(torch.equal, whole.network.parameters(), again.network.parameters()))


def test_refitting_brings_a_cut_network_closer_to_what_it_was(teacher: EVC, images: list[torch.Tensor]) -> None:
    def missed(network: EVC) -> float:
        with torch.no_grad():
            return (network.encode(x) - wanted).square().mean().item()

    x = torch.stack([image[:, :64, :64] for image in images[:2]])
    x = x / 255 if x.dtype == torch.uint8 else x
    network = copy.deepcopy(teacher).eval()
    wanted = network.encode(x).detach()
    masks = md.insert_masks(network, md.Plan.ratio(md.find_groups(network, x[:1]), 0.5, include=("enc.*",)))
    masks.collapse()
    before = missed(network)
    refit_on_crops(network, masks, images, 64, 0)
    assert missed(network) < 0.5 * before


@pytest.mark.slow
def test_students_have_the_planned_widths(teacher: EVC, images: list[torch.Tensor], student: StudentConfig) -> None:
    planned = plan_student(teacher, student)
    inner = {name: keep for name, keep in planned.keep.items() if name.startswith(("hyper_", "y_"))}
    assert inner
    assert all(keep <= planned.groups[name].width for name, keep in inner.items())
    floats = train_stages(copy.deepcopy(teacher), images, CONFIG, student=student, exact=False)
    md.Plan.like(md.find_groups(teacher, torch.rand(1, 3, 64, 64)), floats.network)  # raises unless it is narrower
    assert [len(floats.network.enc[k].conv1.weight) for k in (0, 2, 4)] == [4, 4, 8]


@pytest.mark.long
def test_a_time_box_ends_the_decay_with_all_masks_at_zero(
    teacher: EVC, images: list[torch.Tensor], student: StudentConfig
) -> None:
    config = replace(CONFIG, steps=None, seconds=1.5)
    trained = train_stages(teacher, images, config, student=student, exact=False)
    assert len(trained.network.enc[0].conv1.weight) == 4
    assert all(steps >= 1 for steps in trained.stage_steps.values())


@pytest.mark.slow
def test_plans_and_budgets_make_students(teacher: EVC, student: StudentConfig) -> None:
    plan = plan_student(teacher, student)
    assert dict(plan_student(teacher, StudentConfig(plan=plan.to_json())).keep) == dict(plan.keep)
    budget = plan_student(teacher, StudentConfig(macs=0.9))
    assert any(keep < budget.groups[name].width for name, keep in budget.keep.items())
    priors = plan_student(teacher, StudentConfig(priors=0.5))
    narrowed = {name for name, keep in priors.keep.items() if keep < priors.groups[name].width}
    assert narrowed
    assert all(name.startswith(("hyper_", "y_")) for name in narrowed)


@pytest.mark.slow
def test_the_masks_gradients_do_not_slow_the_weights(teacher: EVC, images: list[torch.Tensor]) -> None:
    plan = md.Plan.ratio(md.find_groups(teacher, torch.rand(1, 3, 64, 64)), keep=0.5)
    masks = md.insert_masks(teacher, plan)
    norms = []
    for pull in (0.0, 1e6):
        loop = Loop(
            teacher,
            images,
            replace(CONFIG, steps=1, ema=0.0, clip=1e-3),
            extra_loss=lambda pull=pull: pull * sum(mask.sum() for mask in masks.values()),  # type: ignore[misc]
        )
        loop.optimizer.step = lambda *_: None  # type: ignore[method-assign,assignment]
        torch.manual_seed(0)
        loop.run()
        norms.append(nn.utils.get_total_norm([parameter.grad for parameter in loop._weights]).item())
    assert norms == pytest.approx([1e-3, 1e-3], rel=1e-3)


# --- checkpoints ---


def test_a_checkpoint_is_whole_or_the_one_before(
    teacher: EVC, images: list[torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path / "c", {"--lr": 0.1}, 1e9)
    tensors, facts = loop_state(Loop(teacher, images, CONFIG))
    checkpoints.write(State(tensors, facts | {"step": 1}), teacher, 0)

    def full(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("maskdecay.codecs._train_checkpoint.write_whole", full)
        with pytest.raises(OSError, match="no space"):
            checkpoints.write(State(tensors, facts | {"step": 2}), teacher, 0)
    state, base, stage = checkpoints.read()
    assert (state.facts["step"], stage) == (1, 0)
    assert state.tensors.keys() == tensors.keys()
    assert all(torch.equal(state.tensors[name], tensors[name]) for name in tensors)
    assert torch.equal(md.load(base, lambda: EVC(TEACHER)).q_basic, teacher.q_basic)
    index = tmp_path / "c/checkpoint.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"format": 99}))
    with pytest.raises(ValueError, match="no checkpoint of this release"):
        checkpoints.read()


_TRAIN = """
import sys
from maskdecay.codecs.evc import PRESETS, EVCConfig
from maskdecay._cli import main
PRESETS["thin"] = EVCConfig(latent=8, encoder=(4, 4, 4, 8), decoder=(4, 4, 4, 8))
sys.exit(main(["evc", "train", *sys.argv[1:]]))
"""


@pytest.mark.long
def test_a_command_that_was_killed_twice_ends_with_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.effect_noise((80, 70), 50).convert("RGB").save(tmp_path / "photos/a.png")
    words = [sys.executable, "-c", _TRAIN, "photos", "--preset", "thin", "--batch", "1", "--crop", "64"]
    words += ["--threads", "1", "--steps", "80", "--ema", "0.99", "--checkpoint-every", "0.003"]
    index = tmp_path / "w.safetensors.checkpoint/checkpoint.json"

    def start(output: str, *more: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([*words, "-o", output, *more], cwd=tmp_path, stderr=subprocess.DEVNULL)

    def written() -> int:
        return index.stat().st_mtime_ns if index.exists() else 0

    for number, status, more in ((signal.SIGKILL, -9, ()), (signal.SIGTERM, 128 + 15, ("--resume",))):
        before, killed = written(), start("w.safetensors", *more)
        while written() == before:
            assert killed.poll() is None
            time.sleep(0.02)
        killed.send_signal(number)
        assert killed.wait(60) == status
        assert index.exists()
        assert not (tmp_path / "w.safetensors").exists()
    assert start("w.safetensors", "--resume").wait(120) == 0
    assert start("v.safetensors").wait(120) == 0
    assert not index.parent.exists()
    identities = {EVCCodec.load(tmp_path / f"{name}.safetensors").identity for name in "wv"}
    assert len(identities) == 1


# --- averages ---


def test_averages_by_hand() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 0.0)
    average = Average(layer, 0.25)
    for value in (1.0, 2.0):
        nn.init.constant_(layer.weight, value)
        average.update()
    # step 1 keeps 2/11 < 0.25, step 2 keeps 3/12 = 0.25: 9/11, then 0.25 * 9/11 + 0.75 * 2
    with average.shown():
        assert layer.weight.item() == pytest.approx(0.25 * 9 / 11 + 1.5)
    assert layer.weight.item() == 2
    average.put()
    assert layer.weight.item() == pytest.approx(0.25 * 9 / 11 + 1.5)


def test_the_result_is_the_average(teacher: EVC, images: list[torch.Tensor]) -> None:
    plain, averaged = copy.deepcopy(teacher), copy.deepcopy(teacher)
    seen: list[torch.Tensor] = []
    bias = plain.enc[0].conv1.bias
    for network, ema in ((plain, 0.0), (averaged, 0.999)):
        torch.manual_seed(3)
        keep = (lambda _: seen.append(bias.detach().clone())) if network is plain else None
        train(network, images, replace(CONFIG, steps=3, ema=ema), on_step=keep)
    expected = teacher.enc[0].conv1.bias.detach()
    for step, value in enumerate(seen, 1):
        kept = (1 + step) / (10 + step)
        expected = kept * expected + (1 - kept) * value
    assert torch.allclose(averaged.enc[0].conv1.bias, expected, atol=1e-7)


# --- precision ---


def test_half_precision_stays_in_the_transforms(teacher: EVC) -> None:
    crops, rates = torch.rand(2, 3, 64, 64), torch.tensor([0.0, 63.0])
    seen: dict[str, torch.dtype] = {}
    teacher.dec[0].block[0].conv1[0].register_forward_hook(lambda *_: seen.update(dec=_[2].dtype))
    teacher.bit_estimator_z.register_forward_hook(lambda *_: seen.update(z=_[2].dtype))
    torch.manual_seed(0)
    half = Objective(teacher.train(), (0.002, 0.03), torch.bfloat16)(crops, rates)
    assert seen == {"dec": torch.bfloat16, "z": torch.float32}
    torch.manual_seed(0)
    full = Objective(teacher, (0.002, 0.03))(crops, rates)
    assert seen["dec"] == torch.float32
    assert half.bpp.dtype == torch.float32
    assert half.loss.item() == pytest.approx(full.loss.item(), rel=0.02)
    assert half.loss.item() != full.loss.item()
    torch.manual_seed(0)
    output = teacher(crops, teacher.rate_to_q_scale(rates))
    costs = rate_distortion(output, crops, rate_to_lambda(rates, (0.002, 0.03)))
    assert full.loss.item() == pytest.approx(costs.loss.mean().item())


# --- watching ---


def test_validations_are_told_and_do_not_disturb(teacher: EVC, images: list[torch.Tensor], tmp_path: Path) -> None:
    told: list[object] = []
    config = replace(CONFIG, steps=3)
    watch = Watch(images, every=0.0, told=told.append)
    watched = train_stages(copy.deepcopy(teacher), images, config, exact=False, hooks=Hooks(watch=watch)).network
    alone = train_stages(copy.deepcopy(teacher), images, config, exact=False).network
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), alone.parameters(), strict=True))
    assert told == watch.points
    assert [(point.stage, point.step) for point in watch.points] == [*(("training", k) for k in (1, 2, 3)), ("end", 3)]
    expected = evaluate(watched, [image.float() / 255 for image in images], RATES)
    assert watch.points[-1].bpp == pytest.approx([point.bpp for point in expected], abs=1e-5)
    assert watch.points[-1].psnr == pytest.approx([point.psnr for point in expected], abs=1e-4)
    assert str(watch.points[-1]).count("dB") == 4


@pytest.mark.slow
def test_tensorboard_gets_scalars_and_a_picture(
    teacher: EVC, images: list[torch.Tensor], student: StudentConfig, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    watch = Watch(images, every=1e9, board=Board(tmp_path / "log"))
    train_stages(teacher, images, CONFIG, student=student, exact=False, hooks=Hooks(watch=watch))
    events = EventAccumulator(str(tmp_path / "log"))
    events.Reload()
    assert {"train/loss", "train/bpp", "train/psnr", "train/learning_rate", "train/gradient_norm"} <= set(
        events.Tags()["scalars"]
    )
    assert [event.value for event in events.Scalars("train/masks left")] == [0.0]
    assert len(events.Scalars("validation/psnr 63")) == 1
    assert events.Tags()["images"] == ["validation/original and decoded"]


def test_without_tensorboard_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'maskdecay\[train\]'"):
        Board(tmp_path)
