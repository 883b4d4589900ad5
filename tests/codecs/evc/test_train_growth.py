"""Training several encoders one after the other, on tiny networks: stages, what stays, going on, exact priors."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from maskdecay.codecs._train_checkpoint import Checkpoints
from maskdecay.codecs._train_hooks import Hooks, StageSteps, TrainingStopped
from maskdecay.codecs._train_plan import Kind, split_steps
from maskdecay.codecs.evc import (
    EVC,
    SCALABLE_PRESETS,
    EVCCodec,
    EVCConfig,
    ScalableEVC,
    TrainConfig,
    _train_decay,
    _train_growth,
    _train_stages,
    exact_priors,
    is_exact,
    load_network,
    train,
)
from maskdecay.codecs.evc._students import StudentConfig, count_student_encoders, plan_encoder, plan_student
from maskdecay.codecs.evc._train_files import read_record
from maskdecay.codecs.evc._train_loop import Loop
from maskdecay.codecs.evc._train_objective import Costs, Objective
from maskdecay.codecs.evc._train_optimizer import suits_muon
from maskdecay.codecs.evc._train_plan import plan_stages
from maskdecay.codecs.evc._train_stages import Trained, train_stages
from maskdecay.codecs.evc._train_watch import Watch
from PIL import Image
from torch import nn

import maskdecay as md
from maskdecay._cli import main

TEACHER = EVCConfig(latent=8, encoder=(8, 8, 8, 8), decoder=(8, 8, 8, 8))
CONFIG = TrainConfig(steps=14, batch_size=1, crop=64, optimizer="muon", ema=0.9)
STAGES = [
    "encoder 1, mask decay",
    "encoder 1, fine-tuning",
    "encoder 2, learning what is left",
    "encoder 2, mask decay",
    "encoder 2, fine-tuning",
    "all encoders together",
]


@pytest.fixture
def teacher() -> EVC:
    torch.manual_seed(0)
    return EVC(TEACHER).eval()


@pytest.fixture
def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, 70, 80), generator=generator).byte() for _ in range(2)]


_plans: dict[object, str] = {}


@pytest.fixture(autouse=True)
def plans_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups are found and proven once for all tests, not in every training."""

    def once(own: Callable[..., md.Plan]) -> Callable[..., md.Plan]:
        def planned(network: nn.Module, config: StudentConfig, *more: object) -> md.Plan:
            key = (own.__name__, config.preset, tuple(parameter.shape for parameter in network.parameters()))
            if key not in _plans:
                _plans[key] = own(network, config, *more).to_json()
            return md.Plan.from_json(_plans[key])

        return planned

    monkeypatch.setattr(_train_growth, "plan_encoder", once(plan_encoder))
    monkeypatch.setattr(_train_stages, "plan_student", once(plan_student))
    monkeypatch.setattr(_train_decay, "plan_student", once(plan_student))


@pytest.fixture
def student(monkeypatch: pytest.MonkeyPatch) -> StudentConfig:
    """Two encoders before the teacher's decoder."""
    monkeypatch.setitem(SCALABLE_PRESETS, "thin", replace(TEACHER, encoder=(4, 4, 8, 8)))
    monkeypatch.setitem(SCALABLE_PRESETS, "thin-ss", replace(TEACHER, encoder=(4, 4, 8, 8), decoder=(4, 4, 4, 8)))
    return StudentConfig(preset="thin@2", decay_share=0.5)


def widths(network: EVC) -> list[int]:
    assert isinstance(network, ScalableEVC)
    return [encoder[0].conv1.out_channels for encoder in network.enc.branches]  # type: ignore[index,union-attr]


def test_stages_share_the_time() -> None:
    stages = plan_stages(converts=True, decay_share=0.5, encoders=2, narrows=False)
    assert [stage.name for stage in stages] == [*STAGES, "fine-tuning exact priors"]
    each = 0.85 * 0.65 / 2
    expected = [each / 2, each / 2, each / 4, each / 2, each / 4, 0.85 * 0.35, 0.15]
    assert [stage.share for stage in stages] == pytest.approx(expected)
    narrower = plan_stages(converts=False, decay_share=0.5, encoders=4, narrows=True)
    assert (len(narrower), narrower[0].name) == (13, "mask decay of the decoder")
    assert sum(stage.share for stage in narrower) == pytest.approx(1)
    assert sum(split_steps(narrower, 100)) == 100
    assert [stage.decays for stage in stages] == [True, False, False, True, False, False, False]
    cut = plan_stages(converts=False, decay_share=0.0, encoders=2, narrows=True)
    assert [(stage.name, stage.kind, stage.share) for stage in cut] == [
        ("fine-tuning the decoder", Kind.CUT, 0.2),
        ("encoder 1, fine-tuning", Kind.GROW, pytest.approx(0.8 * 0.65 / 2)),
        ("encoder 2, fine-tuning", Kind.GROW, pytest.approx(0.8 * 0.65 / 2)),
        ("all encoders together", Kind.GROW, pytest.approx(0.8 * 0.35)),
    ]


def test_students_by_name_tell_their_encoders(student: StudentConfig) -> None:
    assert count_student_encoders(student) == 2
    assert count_student_encoders(replace(student, preset="thin")) == 4
    assert count_student_encoders(StudentConfig(preset="narrow-small")) is None
    assert count_student_encoders(StudentConfig(macs=0.5)) is None


def test_nothing_moves_but_the_newest_encoder_until_all_do(
    teacher: EVC, images: list[torch.Tensor], student: StudentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[dict[str, torch.Tensor]]] = {}
    own = StageSteps.__call__

    def look(steps: StageSteps, step: object) -> None:
        network = steps.part.loop.network
        seen.setdefault(steps.teller.stage, []).append({k: v.clone() for k, v in network.state_dict().items()})
        own(steps, step)  # type: ignore[arg-type]

    monkeypatch.setattr(StageSteps, "__call__", look)
    trained = train_stages(teacher, images, CONFIG, student=student, exact=False)
    assert list(seen) == list(trained.stage_steps) == STAGES
    assert widths(trained.network) == [4, 4]
    assert all(parameter.requires_grad for parameter in trained.network.parameters())
    for name in STAGES:
        first, last = seen[name][0], seen[name][-1]
        moved = {".".join(key.split(".")[:3]) for key in first if not torch.equal(first[key], last[key])}
        newest = {"enc.branches." + ("0" if "1" in name else "1")}
        if name != STAGES[-1]:
            assert moved <= newest, name
        else:
            assert {"enc.branches.0", "enc.branches.1", "q_basic"} <= moved
    assert moved  # and it does train
    learnt, decayed = seen[STAGES[2]][-1], seen[STAGES[3]][0]
    same = [key for key in learnt if key in decayed and key.startswith("enc.branches.0.")]
    assert same
    assert all(torch.equal(learnt[key], decayed[key]) for key in same)


def stopped(folder: Path, after: int, resume: bool, *words: object, **options: object) -> Trained | None:
    """Trains on in a folder, for so many steps at most."""
    left = iter(range(after - 1, -1, -1))
    hooks = Hooks(checkpoints=Checkpoints(folder, {}, 1e9), resume=resume, stops=lambda: next(left, 1) == 0)
    try:
        return train_stages(*words, **options, hooks=hooks)  # type: ignore[arg-type]
    except TrainingStopped:
        return None


@pytest.mark.long
def test_a_growth_that_was_stopped_in_each_kind_of_stage_ends_the_same(
    teacher: EVC, images: list[torch.Tensor], student: StudentConfig, tmp_path: Path
) -> None:
    """Stops are in the first decay, behind what the second encoder learns, in its decay, its tuning and the end."""
    words = (images, replace(CONFIG, steps=12))
    whole = train_stages(copy.deepcopy(teacher), *words, student=student, exact=False)
    assert whole.stage_steps == dict(zip(STAGES, (2, 2, 1, 2, 1, 4), strict=True))
    found, done = None, 0
    for stop in (1, 5, 6, 8, 10, 99):
        torch.manual_seed(stop)
        options = {"student": student, "exact": False}
        found = stopped(tmp_path / "c", stop - done, done > 0, copy.deepcopy(teacher), *words, **options)
        assert (found is None) == (stop < 12)
        assert len(list((tmp_path / "c").iterdir())) == 3, "one base, one state and the index"
        done = stop
    assert found is not None
    assert found.stage_steps == whole.stage_steps
    expected, got = whole.network.state_dict(), found.network.state_dict()
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_encoders_that_are_cut_at_once_go_on_after_stops(
    teacher: EVC, images: list[torch.Tensor], student: StudentConfig, tmp_path: Path
) -> None:
    """Stops are in the tuning of both encoders, between the two, and in the end."""
    words = (images, replace(CONFIG, steps=6))
    options = {"student": replace(student, decay_share=0.0), "exact": False}
    whole = train_stages(copy.deepcopy(teacher), *words, **options)  # type: ignore[arg-type]
    assert whole.stage_steps == dict(zip((STAGES[1], *STAGES[4:]), (2, 2, 2), strict=True))
    assert widths(whole.network) == [4, 4]
    found, done = None, 0
    for stop in (1, 2, 3, 5, 99):
        torch.manual_seed(stop)
        found = stopped(tmp_path / "c", stop - done, done > 0, copy.deepcopy(teacher), *words, **options)
        done = stop
    assert found is not None
    expected, got = whole.network.state_dict(), found.network.state_dict()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.mark.parametrize("decay_share", [0.0, 0.5])
def test_channels_of_each_encoder_are_chosen_and_fitted_on_crops_of_its_own(
    teacher: EVC,
    images: list[torch.Tensor],
    student: StudentConfig,
    decay_share: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    observed: list[tuple[int, int]] = []
    fitted: list[torch.Tensor] = []
    observe, refit_crops = _train_stages.observe_channels, _train_stages.refit_crops

    def look(call: Callable[[], None], network: ScalableEVC, *words: Any) -> None:
        observed.append((network.depths, words[1].seed))
        observe(call, network, *words)

    def keep(*words: Any) -> list[torch.Tensor]:
        fitted.append(torch.cat(refit_crops(*words)))
        return refit_crops(*words)

    monkeypatch.setattr(_train_stages, "observe_channels", look)
    monkeypatch.setattr(_train_stages, "refit_crops", keep)
    train_stages(teacher, images, CONFIG, student=replace(student, decay_share=decay_share), exact=False)
    depths, seeds = zip(*observed, strict=True)
    assert depths == (1, 2)
    assert seeds[0] != seeds[1]
    assert len(fitted) == (0 if decay_share else 2)
    assert not any(torch.equal(fitted[0], other) for other in fitted[1:])


def test_what_cannot_grow_is_refused(teacher: EVC, images: list[torch.Tensor], student: StudentConfig) -> None:
    with pytest.raises(ValueError, match=r"steps=6 are too few for 7 stages \(encoder 1, mask decay"):
        train_stages(teacher, images, replace(CONFIG, steps=6), student=student)
    grown = ScalableEVC(TEACHER, depths=2)
    with pytest.raises(ValueError, match="has several encoders already"):
        train_stages(grown, images, CONFIG, student=student)
    with pytest.raises(ValueError, match="as narrow as those of thin@2 already"):
        plan_encoder(EVC(SCALABLE_PRESETS["thin"]).eval().enc, student, torch.rand(1, 3, 64, 64))


def test_several_encoders_train_together_each_crop_at_an_effort(images: list[torch.Tensor]) -> None:
    torch.manual_seed(0)
    network = ScalableEVC(TEACHER, depths=2)
    x, rates, efforts = torch.rand(2, 3, 64, 64), torch.tensor([5.0, 60.0]), torch.tensor([2, 1])
    network.eval()
    found = Objective(network, (0.002, 0.03))(x, rates, efforts)
    costs = network.rate_distortion(x, network.rate_to_q_scale(rates), 0.002 * 15 ** (rates / 63))
    torch.testing.assert_close(found.loss, (costs.loss[1, 0] + costs.loss[0, 1]) / 2, rtol=1e-4, atol=1e-4)
    last = Objective(network, (0.002, 0.03))(x, rates)
    torch.testing.assert_close(last.loss, costs.loss[1].mean(), rtol=1e-4, atol=1e-4)
    half = Objective(network, (0.002, 0.03), torch.bfloat16)(x, rates, efforts)
    torch.testing.assert_close(half.loss, found.loss, rtol=0.05, atol=0)
    assert not torch.equal(half.loss, found.loss)
    before = copy.deepcopy(network.state_dict())
    train(network, images, replace(CONFIG, steps=2))
    moved = {
        key.split(".")[2]
        for key in before
        if "branches" in key and not torch.equal(before[key], network.state_dict()[key])
    }
    assert moved == {"0", "1"}


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_efforts_in_a_batch_differ_where_they_can(
    images: list[torch.Tensor], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    loop = Loop(ScalableEVC(TEACHER, depths=3), images, replace(CONFIG, batch_size=batch))
    seen: list[Any] = []

    def see(crops: torch.Tensor, rates: torch.Tensor, efforts: torch.Tensor | None) -> Costs:
        seen.append(efforts)
        return Costs(*torch.zeros(3))

    monkeypatch.setattr(loop, "objective", see)
    for _ in range(12):
        loop.costs()
    assert {effort for efforts in seen for effort in efforts.tolist()} == {1, 2, 3}
    for efforts in seen:
        counts = torch.bincount(efforts, minlength=4)[1:]
        assert len(efforts) == batch
        assert counts.max() - counts.min() <= 1
    newest = Loop(ScalableEVC(TEACHER, depths=3), images, CONFIG, newest=True)
    monkeypatch.setattr(newest, "objective", see)
    newest.costs()
    assert seen[-1] is None


def test_ends_of_every_encoder_are_no_matrices_for_muon() -> None:
    plain = dict(EVC(TEACHER).named_parameters())
    for name, parameter in ScalableEVC(TEACHER, depths=2).named_parameters():
        if name.startswith("enc."):
            assert suits_muon(name, parameter) == suits_muon(
                "enc." + name.split(".", 3)[3], plain["enc." + name.split(".", 3)[3]]
            )


def test_exact_priors_have_seen_all_efforts() -> None:
    torch.manual_seed(0)
    network = ScalableEVC(TEACHER, depths=2).eval()
    with torch.no_grad():
        noise = 100 * torch.randn(8)
        network.enc.branches[0][6].bias.add_(noise)  # type: ignore[index,operator]
        network.enc.branches[1][6].bias.sub_(noise)  # type: ignore[index,operator]
    picture = torch.rand(3, 64, 64)
    exact = exact_priors(network, [picture], rates=(63,))
    with torch.no_grad():
        for effort in (1, 2):
            floats, integers = (n(picture[None], n.rate_to_q_scale(63), effort) for n in (network, exact))
            assert integers.bits_y.item() == pytest.approx(floats.bits_y.item(), rel=0.02)


def test_a_validation_has_a_point_for_each_effort(images: list[torch.Tensor]) -> None:
    told: list[str] = []
    torch.manual_seed(0)
    network = ScalableEVC(TEACHER, depths=2)
    watch = Watch([images[0][:, :64, :64]], told=lambda found: told.append(str(found)))
    watch.validate(network, "growing", 1, 0.0, newest=True)
    watch.finish(network, 2, 1.0)
    assert [(point.stage, point.effort) for point in watch.points] == [("growing", 2), ("end", 1), ("end", 2)]
    assert [line[:10] for line in told] == ["effort 2: ", "effort 1: ", "effort 2: "]
    again = Watch()
    again.restore(json.loads(json.dumps(watch.record()))["points"])
    assert again.points == watch.points


@pytest.mark.long
def test_the_command_grows_a_network_that_codes_at_every_effort(
    teacher: EVC, student: StudentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time box ends all of it; the decoder becomes narrow too, before the encoders do."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Image.effect_noise((80, 70), 50).convert("RGB").save("photos/a.png")
    md.save(teacher, Path("teacher.safetensors"))
    words = ["--start", "teacher.safetensors", "--student", "thin-ss@2", "--minutes", "0.03", "--batch", "1"]
    assert main(["evc", "train", "photos", "-o", "w.safetensors", *words, "--crop", "64"]) == 0
    stages = read_record(Path("w.safetensors"))["stages"]
    assert list(stages) == ["mask decay of the decoder", *STAGES, "fine-tuning exact priors"]
    assert all(steps >= 1 for steps in stages.values())
    network = load_network("w.safetensors")
    assert widths(network) == [4, 4]
    assert network.dec[1].conv.out_channels == 4
    assert is_exact(network)
    codec = EVCCodec(network)
    files = [codec.encode(Image.open("photos/a.png"), effort=effort) for effort in (1, 2, "auto")]  # type: ignore[arg-type]
    assert files[0] != files[1]
    assert files[2] in files[:2]
