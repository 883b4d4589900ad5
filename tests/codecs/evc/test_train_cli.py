"""`maskdecay evc train`, on two small pictures for a few steps."""

import copy
import hashlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from maskdecay.codecs._train_hooks import Hooks
from maskdecay.codecs._train_plan import split_steps, stage_config
from maskdecay.codecs._train_progress import Progress, Teller
from maskdecay.codecs._training_images import read_training_images
from maskdecay.codecs.evc import (
    EVC,
    PRESETS,
    EVCCodec,
    EVCConfig,
    TrainConfig,
    TrainStep,
    is_exact,
    load_network,
    self_test,
)
from maskdecay.codecs.evc._train_files import read_record, save_trained, start_record
from maskdecay.codecs.evc._train_plan import plan_stages
from maskdecay.codecs.evc._train_stages import train_stages
from PIL import Image

from maskdecay._cli import main

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--steps", 4, "--batch", 1, "--crop", 64, "--preset", "tiny")


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    ramp = np.linspace(20, 200, height)[:, None, None] + np.linspace(-20, 40, width)[None, :, None]
    return (ramp + np.random.default_rng(seed).uniform(0, 12, (height, width, 3))).astype(np.uint8)


TINY = EVCConfig(latent=8, encoder=(4, 4, 6, 8), decoder=(4, 4, 6, 8))


def write_photos(made: Path) -> Path:
    made.mkdir()
    Image.fromarray(pixels(70, 80)).save(made / "a.png")
    Image.fromarray(pixels(90, 64, 1)[:, :, 0]).save(made / "b.jpg")
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which weights were trained on its photos."""
    made = tmp_path_factory.mktemp("finished")
    photos = write_photos(made / "photos")
    words = [str(photos), "-o", str(made / "w.safetensors"), *map(str, QUICK), "--threads", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", TINY)
        assert main(["evc", "train", *words]) == 0
    return made


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `maskdecay evc train` in an empty folder; gives status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "tiny", TINY)

    def run(*words: str | Path | int | float) -> tuple[int, str, str]:
        status = main(["evc", "train", *map(str, words)])
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return run


def refused(train: Run, *words: str | Path | int | float) -> str:
    """The one line that tells why, after a check that no weights were left."""
    before = sorted(Path().glob("*"))
    status, out, err = train(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert sorted(Path().glob("*")) == before
    return err


def test_weights_code_pictures(finished: Path) -> None:
    codec = EVCCodec.load(finished / "w.safetensors")
    assert codec.decode(codec.encode(pixels(70, 80), rate=63)).shape == (70, 80, 3)
    assert sorted(path.name for path in finished.iterdir()) == ["photos", "w.safetensors"]


def test_the_record_tells_the_origin(finished: Path) -> None:
    record = read_record(finished / "w.safetensors")
    assert record["command"] == (
        f"maskdecay evc train {finished / 'photos'} --output {finished / 'w.safetensors'} --preset tiny --steps 4 "
        "--batch 1 --crop 64 --lr 0.002 --trunk-share 0.075 --optimizer adamw --ema 0.0 --seed 0 --exact --loss evc "
        "--strength 1.0 --decay-share 0.0 --importance fisher --device cpu --threads 1 --precision float32 "
        "--checkpoint-every 5.0 --validate-every 10.0"
    )
    assert (record["preset"], record["exact"], record["steps"]) == ("tiny", True, 4)
    assert record["stages"] == {"training": 3, "fine-tuning exact priors": 1}
    assert record["torch"] == torch.__version__
    assert record["skipped"] == 0
    assert record["training_crops"].keys() == {"loss", "bpp", "psnr"}
    data = record["data"]
    assert data["files"]["a.png"] == hashlib.sha256((finished / "photos/a.png").read_bytes()).hexdigest()[:16]
    assert (data["folder"], data["count"], list(data["files"])) == ("photos", 2, ["a.png", "b.jpg"])


def test_the_record_tells_the_story_of_what_it_started_from(finished: Path) -> None:
    assert read_record(finished / "w.safetensors")["start"] is None
    told = start_record(str(finished / "w.safetensors"))
    assert told["command"] == read_record(finished / "w.safetensors")["command"]
    assert told["data"].keys() == {"folder", "count", "sha256"}
    assert start_record("public.pth.tar") == {}


def test_the_manifest_is_that_of_sha256sum(folder: Path) -> None:
    listing = subprocess.run(["sha256sum", "a.png", "b.jpg"], cwd=folder, capture_output=True, check=True).stdout
    assert read_training_images(folder, 64).manifest()["sha256"] == hashlib.sha256(listing).hexdigest()


def test_the_recorded_command_gives_the_same_weights(train: Run, finished: Path) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    words = read_record(finished / "w.safetensors")["command"].split()
    words[words.index("--output") + 1] = "v.safetensors"
    status, out, err = train(*words[3:])
    assert status == 0
    assert torch.equal(torch.random.get_rng_state(), before)
    identity = EVCCodec.load(finished / "w.safetensors").identity
    assert out.startswith(f"v.safetensors: weights {identity}, 4 steps in 0:00:")
    assert "maskdecay evc train: fine-tuning exact priors, 100%: loss " in err


def test_training_goes_on_from_float_weights(train: Run, folder: Path, tiny_weights: Path) -> None:
    words = (folder, "-o", "w.safetensors", "--start", tiny_weights)
    assert "--preset and --start exclude each other" in refused(train, *words, *QUICK)
    assert train(*words, *QUICK[:6], "--no-exact")[0] == 0
    assert not is_exact(load_network("w.safetensors"))
    record = read_record(Path("w.safetensors"))
    assert (record["preset"], record["stages"], record["exact"]) == (None, {"training": 4}, False)


def test_training_goes_on_from_exact_priors(finished: Path) -> None:
    network = load_network(finished / "w.safetensors")
    assert is_exact(network)
    images = read_training_images(finished / "photos", 64).images
    config = TrainConfig(steps=2, batch_size=1, crop=64)
    with pytest.raises(ValueError, match="exact already and cannot become floats"):
        train_stages(network, images, config, exact=False)
    trained = train_stages(network, images, config)
    assert trained.stage_steps == {"training": 2}
    self_test(trained.network)


def test_minutes_end_the_training(train: Run, folder: Path) -> None:
    assert train(folder, "-o", "w.safetensors", "--minutes", 0.005, *QUICK[2:], "--no-exact")[0] == 0
    assert read_record(Path("w.safetensors"))["seconds"] >= 0.3


def test_stages_share_steps_and_seconds() -> None:
    config = TrainConfig(steps=1000, seconds=100, learning_rate=1.0, seed=4)
    stages = plan_stages(converts=True)
    first = stage_config(config, stages, 0, 0.0)
    assert (first.steps, first.seconds, first.learning_rate, first.warmup) == (850, 85, 1.0, 0.05)
    tuning = stage_config(config, stages, 1, 90.0)
    assert (tuning.steps, tuning.seconds, tuning.learning_rate, tuning.seed) == (150, 10, 0.125, 5)
    assert tuning.warmup == 0
    assert stage_config(config, stages, 1, 120.0).seconds == pytest.approx(7.5), "half of its share at least"
    decay = plan_stages(converts=True, decay_share=0.4)
    assert [stage.share for stage in decay] == pytest.approx([0.34, 0.51, 0.15])
    assert split_steps(decay, 100) == [34, 51, 15]
    assert split_steps(decay, 3) == [1, 1, 1]
    with pytest.raises(ValueError, match=r"steps=2 are too few for 3 stages \(mask decay, fine-tuning the student,"):
        split_steps(decay, 2)
    averaged = TrainConfig(steps=10, ema=0.9)
    assert [stage_config(averaged, decay, index, 0.0).ema for index in range(3)] == [0.0, 0.9, 0.9]


def test_existing_weights_are_replaced_on_demand_only(train: Run, folder: Path) -> None:
    Path("w.safetensors").write_text("precious")
    assert "w.safetensors is there already; give --overwrite" in refused(train, folder, "-o", "w.safetensors", *QUICK)
    assert Path("w.safetensors").read_text() == "precious"
    assert train(folder, "-o", "w.safetensors", *QUICK, "--overwrite", "--no-exact")[0] == 0
    assert load_network("w.safetensors").config.latent == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--preset", "huge"), "there is no EVC preset 'huge'; there are large,"),
        (("--start", "absent.safetensors"), "absent.safetensors"),
        (("--crop", 100), "photos is as large as a crop of 100x100 pixels; make crops smaller"),
        (("--crop", 0), "'--crop'"),
        (("--batch", -1), "'--batch'"),
        (("--steps", 0), "'--steps'"),
        (("--steps", 1, "--crop", 64), "steps=1 are too few for 2 stages (training, fine-tuning exact priors); give 2"),
        (("--ema", 1), "ema=1.0 must lie in [0, 1)"),
        (("--precision", "float16"), "float16 needs a GPU"),
        (("--precision", "int8"), "'int8' is none of float32, bfloat16, float16"),
        (("--lr", "nan"), "--lr nan must be a positive number"),
        (("--optimizer", "sgd"), "optimizer='sgd' is none of adamw, muon"),
        (("--minutes", -1), "--minutes -1.0 must be a positive number"),
        (("--minutes", "inf"), "--minutes inf must be a positive number"),
        (("--threads", 0), "'--threads'"),
        (("--device", "toaster"), "'toaster' is no device; use cpu, cuda or cuda:N"),
        (("--device", "cuda:99"), "there is no device cuda:99"),
        (("--output", "w.pth"), "w.pth must end in .safetensors"),
        (("--output", "absent/w.safetensors"), "there is no folder absent"),
    ],
)
def test_bad_arguments_are_one_line(train: Run, folder: Path, words: tuple, message: str) -> None:
    steps = () if "--minutes" in words or "--steps" in words else ("--steps", 2)
    assert message in refused(train, folder, "-o", "w.safetensors", *steps, *words)


def test_bad_folders_are_one_line(train: Run, folder: Path, tmp_path: Path) -> None:
    wanted = ("-o", "w.safetensors", *QUICK)
    assert "is not a folder" in refused(train, tmp_path / "absent", *wanted)
    (tmp_path / "empty").mkdir()
    assert "empty holds no image file" in refused(train, tmp_path / "empty", *wanted)
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes()[:900])
    assert f"{folder / 'c.png'}: the image file is damaged" in refused(train, folder, *wanted)
    assert "give --minutes, --steps or both" in refused(train, folder, "-o", "w.safetensors")


def test_what_images_lose_is_told(folder: Path) -> None:
    Image.fromarray(pixels(9, 9)).save(folder / "c.png")
    Image.fromarray(np.dstack([pixels(64, 64), pixels(64, 64)[:, :, :1]])).save(folder / "d.png")
    found = read_training_images(folder, 64)
    assert found.notes == ("c.png: left out, for 9x9 is smaller than a crop", "d.png: its alpha is left out")
    assert [tuple(image.shape) for image in found.images] == [(3, 70, 80), (3, 90, 64), (3, 64, 64)]
    assert list(found.digests) == ["a.png", "b.jpg", "d.png"]
    assert all(image.dtype == torch.uint8 and image.is_contiguous() for image in found.images)
    assert (found.images[0].permute(1, 2, 0).numpy() == pixels(70, 80)).all()
    assert torch.equal(found.images[1][0], found.images[1][2])


def test_an_interrupt_keeps_a_checkpoint(train: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in step 2; what else could be meant by the folder that is left is refused; --resume goes on."""
    own = Teller.__call__

    def interrupt(teller: Teller, step: TrainStep, seconds: float) -> None:
        own(teller, step, seconds)
        if step.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    words = (folder, "-o", "w.safetensors", *QUICK, "--no-exact")
    with monkeypatch.context() as patch:
        patch.setattr(Teller, "__call__", interrupt)
        status, out, err = train(*words)
    assert (status, out) == (130, "")
    assert (
        "stopped in the stage training, after 2 steps of it; --resume goes on, w.safetensors was not written\n" in err
    )
    assert sorted(path.name for path in Path().iterdir()) == ["photos", "w.safetensors.checkpoint"]
    assert "is there already, of a training that was stopped; give --resume or --overwrite" in refused(train, *words)
    assert "--resume and --overwrite exclude" in refused(train, *words, "--resume", "--overwrite")
    told = refused(train, *words, "--resume", "--lr", 0.1)
    assert "of other settings: --lr was 0.002, now 0.1. Give the same, or --overwrite to start anew" in told
    status, out, _ = train(*words, "--resume")
    assert (status, "4 steps in" in out) == (0, True)
    assert train(folder, "-o", "v.safetensors", *QUICK, "--no-exact")[0] == 0
    assert EVCCodec.load("w.safetensors").identity == EVCCodec.load("v.safetensors").identity
    assert sorted(path.name for path in Path().iterdir()) == ["photos", "v.safetensors", "w.safetensors"]


def test_a_resume_needs_a_checkpoint(train: Run, folder: Path) -> None:
    told = refused(train, folder, "-o", "w.safetensors", *QUICK, "--resume")
    assert "there is no checkpoint in w.safetensors.checkpoint to resume from" in told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "stages"),
    [
        ((), {"fine-tuning the student": 3}),
        (("--decay-share", 0.5, "--strength", 0.1), {"mask decay": 1, "fine-tuning the student": 2}),
    ],
    ids=["cut", "decayed"],
)
def test_a_student_of_weights(
    train: Run,
    folder: Path,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[object, ...],
    stages: dict[str, int],
) -> None:
    monkeypatch.setitem(PRESETS, "tinier", EVCConfig(latent=8, encoder=(4, 2, 6, 8), decoder=(4, 4, 4, 8)))
    words = ("-o", "w.safetensors", *QUICK[:6], "--start", tiny_weights, "--student", "tinier", *more)
    assert train(folder, *words, "--validate", folder)[0] == 0
    student = load_network("w.safetensors")
    assert [len(block.block[0].conv1[0].weight) for block in (student.enc[3], student.dec[2])] == [2, 4]
    record = read_record(Path("w.safetensors"))
    assert record["stages"] == {**stages, "fine-tuning exact priors": 1}
    assert "--trunk-share 0.4 " in record["command"]  # a student's default
    (point,) = record["validation"]["points"]
    assert (point["stage"], point["step"], len(point["bpp"]), len(point["psnr"])) == ("end", 4, 4, 4)


def test_a_student_needs_a_teacher_and_widths_once(train: Run, folder: Path, tiny_weights: Path) -> None:
    words = (folder, "-o", "w.safetensors", "--steps", 4)
    assert "a student needs a teacher: give its weights with --start" in refused(train, *words, "--student", "small")
    words = (*words, "--start", tiny_weights, "--macs", 0.5)
    assert "not by ['preset', 'macs']" in refused(train, *words, "--student", "small")
    assert "narrows the priors already" in refused(train, *words, "--priors", 0.5)
    assert "decay_share=1.0 must lie in [0, 1)" in refused(train, *words, "--decay-share", 1)
    assert "--loss and --strength are those of a decay; give --decay-share" in refused(train, *words, "--strength", 0.1)


def test_help_fits_80_columns(train: Run) -> None:
    _, out, _ = train("--help")
    assert max(map(len, out.splitlines())) <= 80


def test_progress_is_that_of_the_whole(folder: Path, tiny: EVC) -> None:
    told: list[Progress] = []
    images = read_training_images(folder, 64).images
    hooks = Hooks(on_progress=told.append)
    trained = train_stages(copy.deepcopy(tiny), images, TrainConfig(steps=10, batch_size=1, crop=64), hooks=hooks)
    assert trained.stage_steps == {"training": 8, "fine-tuning exact priors": 2}
    assert [now.stage for now in told] == 8 * ["training"] + 2 * ["fine-tuning exact priors"]
    assert [now.fraction for now in told] == pytest.approx([*(0.85 * k / 8 for k in range(1, 9)), 0.925, 1.0])
    assert told[-1].seconds_left == 0
    assert not trained.network.training


def test_weights_that_make_no_codec_are_not_written(tiny: EVC, tmp_path: Path) -> None:
    broken = copy.deepcopy(tiny)
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(ValueError, match="no distribution"):
        save_trained(broken, tmp_path / "w.safetensors", {})
    assert list(tmp_path.iterdir()) == []
