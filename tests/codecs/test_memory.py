import subprocess
import sys

import pytest
from maskdecay.codecs import _memory

FAULTS = """
import resource, runpy, sys
kept = sys.argv[2] == "keep" and runpy.run_path(sys.argv[1])["keep_freed_memory"]()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * (64 << 20)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str) -> tuple[bool, int]:
    """In a process of its own: whether memory is kept, and the page faults of using 64 MB a second time."""
    command = [sys.executable, "-c", FAULTS, _memory.__file__, *arguments]
    kept, count = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_kept_memory_costs_no_page_faults() -> None:
    kept, count = faults("keep")
    if not kept:
        pytest.skip("this libc is not glibc")
    assert count < 100
    assert faults("default")[1] >= 32  # with huge pages; 16384 with small ones


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert _memory.keep_freed_memory() is False
