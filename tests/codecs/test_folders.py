import os
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import pytest
from maskdecay.codecs import CodecWarning, _folders
from maskdecay.codecs._folders import Job, Outcome, one_line, plan_jobs, run_jobs
from maskdecay.codecs._writing import write_whole


def upper(source: Path, target: Path) -> str:
    """A codec for text: bad files hold 'bad', strange ones are noted."""
    text = source.read_text()
    if text == "bad":
        raise ValueError("this text\nis bad")
    if text == "strange":
        warnings.warn("a strange text", CodecWarning, stacklevel=1)
    write_whole(target, text.upper().encode())
    return f"{len(text)} letters"


def prepare_upper() -> Callable[[Path, Path], str]:
    return partial(upper)


def fail_to_prepare() -> Callable[[Path, Path], str]:
    raise ValueError("there are no letters")


def make(folder: Path, *names: str, text: str = "text") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def plan(sources: list[Path], output: Path, recursive: bool = False) -> list[tuple[str, str]]:
    jobs = plan_jobs(sources, output, suffixes={".txt", ".md"}, target_suffix=".up", recursive=recursive)
    return [
        (str(job.source.relative_to(sources[0].parent)), str(job.target.relative_to(output.parent))) for job in jobs
    ]


def run(folder: Path, output: Path, **options: object) -> dict[str, Outcome]:
    jobs = plan_jobs([folder], output, suffixes={".txt", ".md"}, target_suffix=".up")
    return {outcome.job.source.name: outcome for outcome in run_jobs(jobs, prepare_upper, **options)}  # type: ignore[arg-type]


def test_a_file_becomes_a_file_or_goes_into_a_folder(tmp_path: Path) -> None:
    make(tmp_path, "a.b.txt")
    assert plan([tmp_path / "a.b.txt"], tmp_path / "any.name") == [("a.b.txt", "any.name")]
    (tmp_path / "out").mkdir()
    assert plan([tmp_path / "a.b.txt"], tmp_path / "out") == [("a.b.txt", "out/a.b.up")]


def test_several_files_go_into_a_folder_whatever_their_suffix(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "b.dat")
    assert plan([tmp_path / "a.txt", tmp_path / "b.dat"], tmp_path / "out") == [
        ("a.txt", "out/a.up"),
        ("b.dat", "out/b.up"),
    ]


def test_a_folder_gives_its_visible_files_in_order(tmp_path: Path) -> None:
    make(tmp_path / "in", "b.txt", "a.MD", "c.dat", ".hidden.txt", "sub/d.txt", ".git/e.txt")
    assert plan([tmp_path / "in"], tmp_path / "out") == [("in/a.MD", "out/a.up"), ("in/b.txt", "out/b.up")]
    assert plan([tmp_path / "in"], tmp_path / "out", recursive=True) == [
        ("in/a.MD", "out/a.up"), ("in/b.txt", "out/b.up"), ("in/sub/d.txt", "out/sub/d.up"),
    ]  # fmt: skip


def test_plans_that_cannot_work_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "in/sub/a.txt", "file")
    with pytest.raises(ValueError, match=r"there is no file or folder .*absent"):
        plan([tmp_path / "absent"], tmp_path / "out")
    with pytest.raises(ValueError, match=r"holds no file that ends in \.md, \.txt; --recursive"):
        plan([tmp_path / "in"], tmp_path / "out")
    with pytest.raises(ValueError, match=r"file is a file; .* needs a folder"):
        plan([tmp_path / "in"], tmp_path / "file", recursive=True)
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        plan([tmp_path / "in"], tmp_path / "nowhere" / "out", recursive=True)


def test_a_bad_file_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    make(tmp_path / "in", "a.txt", "c.txt")
    make(tmp_path / "in", "b.txt", text="bad")
    make(tmp_path / "in", "d.txt", text="strange")
    found = run(tmp_path / "in", tmp_path / "out")
    assert {name: (outcome.state, outcome.text) for name, outcome in found.items()} == {
        "a.txt": ("done", "4 letters"),
        "b.txt": ("failed", "this text is bad"),
        "c.txt": ("done", "4 letters"),
        "d.txt": ("done", "7 letters"),
    }
    assert found["d.txt"].notes == ("a strange text",)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.up", "c.up", "d.up"]
    assert (tmp_path / "out" / "a.up").read_text() == "TEXT"


class BrokenPool(Executor):
    """A pool whose processes die at their first job."""

    def __init__(self, workers: int, **_: object) -> None:
        assert workers == 2

    def submit(self, *_: object) -> Future:  # type: ignore[override]
        future: Future = Future()
        future.set_exception(BrokenProcessPool("gone"))
        return future


def test_a_dead_worker_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_folders, "ProcessPoolExecutor", BrokenPool)
    make(tmp_path / "in", "a.txt", "b.txt")
    found = run(tmp_path / "in", tmp_path / "out", workers=9)
    assert [outcome.state for outcome in found.values()] == ["failed", "failed"]
    assert all("worker process ended" in outcome.text for outcome in found.values())


def test_a_worker_prepares_once_and_says_why_it_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_folders, "_work", None)
    make(tmp_path, "a.txt")
    job = Job(tmp_path / "a.txt", tmp_path / "a.up")
    assert _folders._attempt_here(fail_to_prepare, job).text == "there are no letters"
    assert _folders._attempt_here(prepare_upper, job).state == "done"
    assert _folders._attempt_here(fail_to_prepare, job).state == "done"


def test_outputs_that_are_there_are_refused_skipped_or_replaced(tmp_path: Path) -> None:
    make(tmp_path / "in", "a.txt", "b.txt")
    make(tmp_path / "out", "a.up", text="old")
    found = run(tmp_path / "in", tmp_path / "out")
    assert found["a.txt"].state == "failed"
    assert "is there already; give --overwrite or --skip-existing" in found["a.txt"].text
    assert found["b.txt"].state == "done"
    assert (tmp_path / "out" / "a.up").read_text() == "old"
    again = run(tmp_path / "in", tmp_path / "out", existing="skip")
    assert [outcome.state for outcome in again.values()] == ["skipped", "skipped"]
    assert (tmp_path / "out" / "a.up").read_text() == "old"
    last = run(tmp_path / "in", tmp_path / "out", existing="overwrite")
    assert [outcome.state for outcome in last.values()] == ["done", "done"]
    assert (tmp_path / "out" / "a.up").read_text() == "TEXT"


def test_nothing_is_prepared_where_nothing_is_to_do(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "a.up")
    job = Job(tmp_path / "a.txt", tmp_path / "a.up")
    assert [outcome.state for outcome in run_jobs([job], fail_to_prepare, existing="skip")] == ["skipped"]
    with pytest.raises(ValueError, match="there are no letters"):
        list(run_jobs([job], fail_to_prepare, existing="overwrite"))


def test_files_that_would_overwrite_each_other_are_left(tmp_path: Path) -> None:
    make(tmp_path / "in", "a.txt", "a.md", "b.txt")
    for existing in ("refuse", "overwrite"):
        found = run(tmp_path / "in", tmp_path / existing, existing=existing)
        assert [found[name].state for name in ("a.txt", "a.md", "b.txt")] == ["failed", "failed", "done"]
        assert "a.md and " in found["a.txt"].text
        assert "would all become" in found["a.txt"].text
        assert [path.name for path in (tmp_path / existing).iterdir()] == ["b.up"]


def test_outputs_that_cannot_be_are_refused_before_any_work(tmp_path: Path) -> None:
    make(tmp_path, "a.txt")
    (tmp_path / "folder").mkdir()
    for target, message in (("a.txt", "the same file"), ("folder", "is a folder"), ("no/a.up", "there is no folder")):
        jobs = [Job(tmp_path / "a.txt", tmp_path / target)]
        (outcome,) = run_jobs(jobs, fail_to_prepare, existing="overwrite")
        assert outcome.state == "failed"
        assert message in outcome.text
    assert (tmp_path / "a.txt").read_text() == "text"


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a", text="old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match=r"cannot write .*a: No space left on device"):
        write_whole(tmp_path / "a", b"new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    make(tmp_path, "usual")
    write_whole(tmp_path / "a", b"data")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("two\n lines"), "two lines"),
        (FileNotFoundError(2, "No such file", "a.png"), "No such file: a.png"),
        (OSError("cannot write a.png: disk full"), "cannot write a.png: disk full"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("not enough memory"), "RuntimeError: not enough memory"),
    ],
)
def test_errors_are_one_line(error: Exception, text: str) -> None:
    assert one_line(error) == text
