import numpy as np
import pytest
import torch
from PIL import Image

from maskdecay._trajectory import SAMPLES, Recorder, Trajectory


def sample():
    return Trajectory(
        steps=np.array([0, 2, 3]),
        masks={
            "a": np.array([[1, 1], [0.1, 1.5], [0, 1 / 3]], np.float32),
            "b": np.array([[1, 1, -1]] * 3, np.float32),
        },
        chosen={"a": np.array([True, False]), "b": np.array([False, False, False])},
        deadline=8,
        end=10,
    )


def test_recorder_keeps_every_step_then_thins_by_doubling():
    recorder = Recorder()
    for step in range(SAMPLES + 1):
        recorder.record(step, torch.tensor([float(step)]))
    assert recorder.interval == 2
    for step in range(SAMPLES + 1, 1001):
        recorder.record(step, torch.tensor([float(step)]))
    assert recorder.interval == 8
    assert recorder.steps == list(range(0, 1001, 8))
    steps, values = recorder.samples(1003, torch.tensor([7.0]))
    assert steps.tolist() == [*range(0, 1001, 8), 1003]
    assert values[:, 0].tolist() == [*range(0, 1001, 8), 7]
    assert len(recorder.samples(1000, torch.tensor([7.0]))[0]) == len(recorder.steps)


def test_recorder_copies_what_it_records():
    recorder, values = Recorder(), torch.ones(2)
    recorder.record(0, values)
    values += 1
    assert recorder.samples(0, values)[1].tolist() == [[1, 1]]


def test_json_both_ways_is_exact():
    once = sample()
    again = Trajectory.from_json(once.to_json())
    assert again.steps.tolist() == [0, 2, 3]
    assert (again.deadline, again.end) == (8, 10)
    for name, rows in once.masks.items():
        assert np.array_equal(again.masks[name], rows)
        assert again.masks[name].dtype == np.float32
        assert np.array_equal(again.chosen[name], once.chosen[name])
    assert again.to_json() == once.to_json()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"steps": [], "masks": 3}'])
def test_what_is_no_trajectory_is_refused(text):
    with pytest.raises(ValueError, match="not the JSON of a trajectory"):
        Trajectory.from_json(text)


def test_plot_shows_both_colours(tmp_path):
    sample().plot(tmp_path / "masks.png")
    with Image.open(tmp_path / "masks.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape == (675, 1200, 3)
    for colour in ((0x3B, 0x6F, 0xB6), (0xD9, 0x72, 0x2E)):
        assert (np.abs(pixels - colour).sum(axis=2) < 12).sum() > 500
