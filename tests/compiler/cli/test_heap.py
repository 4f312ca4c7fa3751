"""Memory that a command frees is used again without new pages."""

import os
import platform
import subprocess
import sys

import pytest

from shrinkc.compiler.cli.heap import OPT_OUT

WORK = """
import resource
from shrinkc.compiler.cli.heap import keep_freed_memory
print(keep_freed_memory())
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
size = int("33554432")  # nothing that is made before it runs
b"x" * size
before = faults()
for _ in range(20):
    b"x" * size
print(faults() - before)
"""
PAGES = 20 * 2**25 // 4096


def kept_and_faults(**environment: str) -> tuple[str, int]:
    clean = {name: x for name, x in os.environ.items() if not name.startswith("MALLOC_")}
    found = subprocess.run(
        *([sys.executable, "-c", WORK],),
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults = found.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_pages_are_touched_once() -> None:
    kept, faults = kept_and_faults()
    assert kept == "True"
    assert faults < PAGES / 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
@pytest.mark.parametrize("name", [OPT_OUT, "MALLOC_TOP_PAD_"])
def test_it_can_be_left_alone(name: str) -> None:
    kept, faults = kept_and_faults(**{name: "system" if name == OPT_OUT else "131072"})
    assert kept == "False"
    if name == OPT_OUT:
        assert faults > PAGES / 2
