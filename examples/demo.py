"""Compile the example network for a Raspberry Pi 4 and show that it still reads every digit.

    python examples/demo.py

Writes the 450 test images of scikit-learn's digits as PNG class folders, runs the `shrinkc`
command on examples/digits.pt with them, and leaves the files in demo-out/.
"""

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from digits_data import MEAN, SIZE, STD, split, write_folders

ROOT = Path(__file__).resolve().parent.parent
OUT = "demo-out"


def command(images: str) -> list[str]:
    """The command line as a user would type it in the checkout."""
    return [
        *("shrinkc", "examples/digits.pt", "--arch", "examples.digits_net:digits_net"),
        *("--target", "rpi4", "--input", f"1,1,{SIZE},{SIZE}", "--images", images),
        *("--resize", str(SIZE), "--mean", str(MEAN), "--std", str(STD), "-o", OUT),
    ]


def console_script() -> str:
    """The `shrinkc` that was installed beside this Python."""
    script = Path(sys.executable).parent / "shrinkc"
    if not script.exists():
        sys.exit(f"no {script}: install shrinkc first (`make demo` does)")
    return str(script)


def main() -> None:
    _, _, images, labels = split()
    with tempfile.TemporaryDirectory(prefix="digits-") as folder:
        write_folders(images, labels, Path(folder))
        arguments = command(folder)
        print(f"$ {shlex.join(arguments)}\n", flush=True)
        done = subprocess.run([console_script(), *arguments[1:]], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    sys.exit(show(json.loads((ROOT / OUT / "report.json").read_text())))


def show(report: dict[str, Any]) -> int:
    """Print the test accuracy before and after; 1 if it is not the same."""
    before = report["original_top1"]
    after = {artefact["file"]: artefact["top1"] for artefact in report["artefacts"]}
    print(f"\nTest images read right, of {report['images']}:")
    for name, share in {"digits.pt (PyTorch)": before, **after}.items():
        print(f"  {name:20} {round(share * report['images']):4}  {share:.2%}")
    merges = [change for change in report["changes"] if change["pass"] == "merge-linear"]
    for change in merges:
        print(f"Merged exactly: {len(change['replaces'])} nodes into {change['node']}")
    print(f"The files are in {OUT}/.")
    return int(any(share != before for share in after.values()))


if __name__ == "__main__":
    main()
