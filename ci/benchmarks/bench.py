"""The benchmark of the book: `s4d bench` with its defaults into chapters/results/bench.json.

    python ci/benchmarks/bench.py [options of s4d bench]

An hour or two on two processor cores; stopped, the same call goes on. Appendix c reads the record. The other
benchmarks of this folder measure one thing each and leave records of their own; `textbook.py` is what ours stands
beside.
"""

import sys

from s4d_lib.cli.app import main
from s4d_lib.files import RESULTS

if __name__ == "__main__":
    asked = sys.argv[1:]
    sys.argv = ["s4d", "bench", *(() if "--json" in asked else ("--json", str(RESULTS / "bench.json"))), *asked]
    main()
