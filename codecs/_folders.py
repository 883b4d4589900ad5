"""Many files: which inputs become which outputs, and getting them done, one or several at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from ._pictures import CodecWarning

Existing = Literal["refuse", "skip", "overwrite"]
"""What becomes of an output that is there already."""
Work = Callable[[Path, Path], str]
"""Makes the output (second) from the input (first), whole or not at all, and says what it made in a few words."""


class Job(NamedTuple):
    """One file to make."""

    source: Path
    target: Path
    makes_folder: bool = False
    """Whether the target's folder is made if it is missing."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job.

    Args:
        job: the job.
        state: `done`, `skipped` (the output was there) or `failed` (there is no new output).
        text: what was made, or what went wrong, in one line.
        notes: warnings, one line each.
    """

    job: Job
    state: Literal["done", "skipped", "failed"]
    text: str = ""
    notes: tuple[str, ...] = ()


def plan_jobs(
    sources: Sequence[Path], output: Path, *, suffixes: Collection[str], target_suffix: str, recursive: bool = False
) -> list[Job]:
    """Find what to do.

    One file becomes `output`, or goes into it if `output` is a folder. Several, or a folder's, go into the folder
    `output` under their own names with `target_suffix`; with `recursive`, subfolders are mirrored. Files in folders
    count if their suffix does; hidden ones never do.

    Args:
        sources: files and folders.
        output: a file or a folder; a folder need not exist.
        suffixes: of inputs in folders, lower case.
        target_suffix: of outputs in folders.
        recursive: look into subfolders too.

    Raises:
        ValueError: an input is missing, a folder holds nothing to do, or `output` can be no folder where it must.
    """
    for source in sources:
        if not source.exists():
            raise ValueError(f"there is no file or folder {source}")
    if len(sources) == 1 and not sources[0].is_dir() and not output.is_dir():
        return [Job(sources[0], output)]
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; what comes from several files or a folder needs a folder")
    if not output.parent.is_dir():
        raise ValueError(f"cannot make folder {output}: there is no folder {output.parent}")
    jobs = []
    for source in sources:
        names = _names(source, suffixes, recursive) if source.is_dir() else {source: Path(source.name)}
        jobs += [Job(path, output / name.with_suffix(target_suffix), True) for path, name in names.items()]
    return jobs


def _names(folder: Path, suffixes: Collection[str], recursive: bool) -> dict[Path, Path]:
    """The files to take from a folder, each with its path within it; hidden ones and hidden folders are left out."""
    names = {path: path.relative_to(folder) for path in (folder.rglob("*") if recursive else folder.iterdir())}
    found = {
        path: name
        for path, name in sorted(names.items())
        if path.suffix.lower() in suffixes and path.is_file() and not any(p.startswith(".") for p in name.parts)
    }
    if not found:
        hint = "" if recursive else "; --recursive looks into its subfolders"
        raise ValueError(f"{folder} holds no file that ends in {', '.join(sorted(suffixes))}{hint}")
    return found


def run_jobs(
    jobs: Sequence[Job], prepare: Callable[[], Work], *, existing: Existing = "refuse", workers: int = 1
) -> Iterator[Outcome]:
    """Do jobs; what fails is told, and the rest goes on.

    Args:
        jobs: from `plan_jobs`.
        prepare: called once per process (not at all if there is nothing to do), for what all jobs need; picklable
            if there are several workers.
        existing: what to do about outputs that are there; `skip` resumes a run, since outputs are written whole.
        workers: processes, each with one thread; 1 works in this one.

    Yields:
        One outcome per job, as they come in.

    Raises:
        Whatever `prepare` raises in this process; a worker's is an outcome.
    """
    if workers < 1:
        raise ValueError(f"workers={workers} must be at least 1")
    ready, others = _sort(jobs, existing)
    yield from others
    if not ready:
        return
    if workers == 1 or len(ready) == 1:
        work = prepare()
        for job in ready:
            yield _attempt(work, job)
        return
    yield from _in_processes(ready, prepare, min(workers, len(ready)))


def _sort(jobs: Sequence[Job], existing: Existing) -> tuple[list[Job], list[Outcome]]:
    """Jobs to do, and outcomes of the others."""
    by_target: dict[str, list[Job]] = {}
    for job in jobs:
        by_target.setdefault(os.path.normcase(os.path.abspath(job.target)), []).append(job)
    ready, others = [], []
    for job in jobs:
        rivals = by_target[os.path.normcase(os.path.abspath(job.target))]
        if len(rivals) > 1:
            names = " and ".join(str(rival.source) for rival in rivals)
            others.append(Outcome(job=job, state="failed", text=f"{names} would all become {job.target}; rename them"))
        elif job.target.exists() and job.source.exists() and job.target.samefile(job.source):
            others.append(Outcome(job=job, state="failed", text="input and output are the same file"))
        elif job.target.is_dir():
            others.append(Outcome(job=job, state="failed", text=f"cannot write {job.target}: it is a folder"))
        elif not job.makes_folder and not job.target.parent.is_dir():
            text = f"cannot write {job.target}: there is no folder {job.target.parent}"
            others.append(Outcome(job=job, state="failed", text=text))
        elif existing == "skip" and job.target.is_file():
            others.append(Outcome(job=job, state="skipped", text=f"{job.target} is there"))
        elif existing == "refuse" and job.target.exists():
            text = f"{job.target} is there already; give --overwrite or --skip-existing"
            others.append(Outcome(job=job, state="failed", text=text))
        else:
            ready.append(job)
    return ready, others


def _attempt(work: Work, job: Job) -> Outcome:
    """Do one job; bad files, bad disks and want of memory are told, not raised."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CodecWarning)
        try:
            if job.makes_folder:
                job.target.parent.mkdir(parents=True, exist_ok=True)
            text, state = work(job.source, job.target), "done"
        except (ValueError, OSError, MemoryError, RuntimeError) as error:  # torch's want of memory is a RuntimeError
            text, state = one_line(error), "failed"
    notes = tuple(one_line(found.message) for found in caught if issubclass(found.category, CodecWarning))
    return Outcome(job=job, state=state, text=text, notes=notes)


def one_line(error: Warning | BaseException | str) -> str:
    """What an error says, in one line; its kind where it says nothing, or where it is the program's fault."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, MemoryError | RuntimeError) or not text:
        return f"{type(error).__name__}: {text[:300]}".rstrip(": ")
    return text


_work: Work | None = None  # a worker process's own


def _in_processes(jobs: list[Job], prepare: Callable[[], Work], workers: int) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")  # a forked torch with threads hangs
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        futures: dict[Future[Outcome], Job] = {pool.submit(_attempt_here, prepare, job): job for job in jobs}
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool:
                text = "a worker process ended before its time (out of memory?); run again with fewer --workers"
                yield Outcome(job=futures[future], state="failed", text=text)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops them
    torch.set_num_threads(1)


def _attempt_here(prepare: Callable[[], Work], job: Job) -> Outcome:
    """In a worker process: prepare once, then attempt."""
    global _work
    if _work is None:
        try:
            _work = prepare()
        except (ValueError, OSError, MemoryError, RuntimeError) as error:
            return Outcome(job=job, state="failed", text=one_line(error))
    return _attempt(_work, job)
