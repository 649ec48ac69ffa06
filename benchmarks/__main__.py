"""`python -m benchmarks`: print the table, write JSON, end with an error if a `must` is missed or a result is wrong."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.rows import ROWS
from benchmarks.timing import MissingError, Row, Sizes, table
from coordreg.train import atomic


def main(arguments: Sequence[str] | None = None, sizes: Sizes | None = None) -> int:
    """Measure, print, write; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=f"some of: {', '.join(ROWS)}")
    parser.add_argument("--repeats", type=int, default=None, help="rounds of each measurement, at least 9 to be judged")
    parser.add_argument("--out", type=Path, default=Path("_build/bench.json"), help="where the JSON goes")
    options = parser.parse_args(arguments)
    sizes = sizes or Sizes()
    if options.repeats is not None:
        if options.repeats < 1:
            parser.error(f"--repeats: got {options.repeats}, expected at least 1")
        sizes = Sizes(**{**vars(sizes), "repeats": options.repeats})
    torch.set_num_threads(1)
    rows: list[Row] = []
    for name in options.only or ROWS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            row = ROWS[name](sizes)
        except MissingError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
            continue
        if row is None:
            print(f"{name}: left out, its part of the library is not there", file=sys.stderr)
        else:
            rows.append(row)
    print(table(rows))
    machine = {"python": platform.python_version(), "torch": torch.__version__, "cpu": platform.machine()}
    machine |= {"cores": str(os.cpu_count()), "time": time.strftime("%Y-%m-%d %H:%M:%S")}
    with atomic(options.out) as part:
        part.write_text(
            json.dumps({"machine": machine, "sizes": vars(sizes), "rows": [r.json() for r in rows]}, indent=1)
        )
    failed = [row for row in rows if row.failed]
    for row in failed:
        reason = f"is {'above' if row.limit else 'below'} its must of {row.text(row.must)}"
        reason = "gives another result than its peer" if row.verdict == "wrong" else reason
        print(f"{row.operation} {reason} ({row.text(row.ratio)})", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
