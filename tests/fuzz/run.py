"""Feeds every reader of shrinkc with inputs that are nearly right.

    python tests/fuzz/run.py [--seconds N] [--seed N] [--keep FOLDER] [--json FILE] [READER …]
    python tests/fuzz/run.py --replay FOLDER

What is read wrong is kept in FOLDER, and read again by `--replay`. Exits with 1 if anything was.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from pathlib import Path

from campaign import Campaign, replay
from readers import NAMES, PLANTED


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(NAMES)}; all")
    parser.add_argument("--seconds", type=float, default=60.0, help="of every reader")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--json", type=Path, help="write the counts there")
    parser.add_argument("--hang", type=float, default=30.0, help="seconds that one input may take")
    parser.add_argument("--replay", type=Path, help="a folder that was kept")
    given = parser.parse_args()
    unknown = set(given.readers) - {*NAMES, *PLANTED}
    if unknown:
        parser.error(f"no reader {', '.join(sorted(unknown))}")
    if given.replay:
        about = json.loads((given.replay / ".finding").read_text())
        print(json.dumps(found := replay(about["reader"], given.replay)))
        return int(found["found"] is not None)
    print(f"seed {given.seed}", flush=True)
    campaign = Campaign(
        given.seed, given.keep, given.hang, told=lambda text: print(text, flush=True)
    )
    campaign.run(given.readers or NAMES, given.seconds)
    _show(campaign)
    if given.json:
        counts = {name: vars(tally) for name, tally in campaign.tallies.items()}
        given.json.write_text(json.dumps({"seed": given.seed, "readers": counts}, indent=1))
    return int(any(tally.findings for tally in campaign.tallies.values()))


def _show(campaign: Campaign) -> None:
    print(f"{'reader':16} {'inputs':>9} {'read':>9} {'per s':>7}  wrong")
    for name, tally in campaign.tallies.items():
        speed = tally.inputs / tally.seconds if tally.seconds else 0.0
        wrong = sum(tally.findings.values())
        print(
            f"{name:16} {tally.inputs:9,} {tally.outcomes['read']:9,} {speed:7,.0f}  {wrong or ''}"
        )
    print(f"{'all':16} {sum(t.inputs for t in campaign.tallies.values()):9,}")


if __name__ == "__main__":
    sys.exit(main())
