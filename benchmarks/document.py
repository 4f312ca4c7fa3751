"""Make the tables of README and docs/ that come from result files again.

    python -m benchmarks.document            # rewrite those that differ
    python -m benchmarks.document --check    # name them, and exit with 1 where there are any

benchmarks/documents says which table is made from what; numbers in sentences are held against
their files by tests/benchmarks/test_documents.py.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.documents.page import rewritten
from benchmarks.shared.common import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    stale = False
    for page in PAGES:
        text = page.read_text("utf-8")
        new = rewritten(text, ROOT)
        if new != text:
            stale = True
            print(f"{page.relative_to(ROOT)}: {'differs' if check else 'rewritten'}")
            if not check:
                page.write_text(new, "utf-8")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
