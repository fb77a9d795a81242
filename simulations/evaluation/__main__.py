"""`python -m simulations.evaluation`: the adversary as the advisor, and the situations whose best decision is known."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from simulations.evaluation import adversary
from simulations.evaluation.scoring import reasons, score_table, scored, situation_table
from simulations.evaluation.situation import load_situations
from tools.errors import InfertuneError

WIDTH = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Print all tables, and return 1 if a model ever made a verdict or a choice worse without noise."""
    parser = argparse.ArgumentParser(prog="python -m simulations.evaluation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=adversary.SEEDS, help="draws of the recorded noise")
    options = parser.parse_args(arguments)
    console = Console(width=WIDTH, highlight=False, markup=False)
    began = time.monotonic()
    try:
        situations = load_situations()
        with adversary.pool() as pool:
            sprung = adversary.run(pool, options.seeds)
            results = list(pool.map(scored, situations))
            outcomes = sprung()
    except InfertuneError as error:
        console.print(f"error: {error}")
        return 2
    console.print(adversary.describe())
    console.print(adversary.table(outcomes))
    console.print(score_table(results))
    console.print(situation_table(results))
    for sentence in reasons(results):
        console.print(sentence)
    made_worse = adversary.worse(outcomes)
    for one in made_worse:
        console.print(f"WORSE without noise: {one}")
    console.print(f"took {time.monotonic() - began:.0f} s")
    return 1 if made_worse else 0


if __name__ == "__main__":
    sys.exit(main())
