"""Plants hostile texts in every place where other people's words enter, lets a gullible model loose, and counts.

python -m simulations.injection [--all] [--place NAME] [--technique NAME]
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simulations.injection.corpus import Hostile, corpus
from simulations.injection.places import PLACES, Place
from simulations.injection.runs import Lab, Outcome
from tools.cluster.text import shown

EACH = 2
"""Texts for each place in a sample."""
_STRIDE = 17
"""Coprime with the number of texts, so that the sample goes through all techniques."""
_REFUSAL = 110


@dataclass
class Tally:
    """What became of the texts in one place."""

    techniques: set[str] = field(default_factory=set)
    runs: int = 0
    obeyed: int = 0
    breaches: int = 0
    refusals: Counter[str] = field(default_factory=Counter)


def sampled(places: Sequence[Place], texts: Sequence[Hostile], each: int = EACH) -> Iterator[tuple[Place, Hostile]]:
    """Yield so many texts for each place: the same every time, and others in each place."""
    for number, place in enumerate(places):
        for turn in range(min(each, len(texts))):
            yield place, texts[(number * each + turn) * _STRIDE % len(texts)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print a table of places; returns 1 if anything got through."""
    given = _arguments(arguments)
    places = [place for place in PLACES if given.place is None or place.name == given.place]
    texts = [text for text in corpus() if given.technique is None or text.technique == given.technique]
    if not places or not texts:
        sys.stderr.write(f"Places: {'; '.join(p.name for p in PLACES)}.\n")
        sys.stderr.write(f"Techniques: {'; '.join(dict.fromkeys(t.technique for t in corpus()))}.\n")
        return 2
    pairs = [(p, t) for p in places for t in texts] if given.all else list(sampled(places, texts))
    tallies: dict[str, Tally] = defaultdict(Tally)
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    with Lab() as lab:
        for place, text in pairs:
            outcome = lab.run(place, text)
            _count(tallies[place.name], text, outcome)
            for breach in outcome.breaches:
                console.print(
                    Text(f"GOT THROUGH: {text.technique}, {text.identity}, in {place.name}: {shown(breach, 300)}")
                )
    _print(tallies, console)
    through = sum(tally.breaches for tally in tallies.values())
    obeyed = sum(tally.obeyed for tally in tallies.values())
    used = len({text for _, text in pairs})
    console.print(f"{len(pairs)} of {len(PLACES) * len(corpus())} pairs, {used} of {len(corpus())} texts.")
    console.print(f"The model obeyed in {obeyed} runs; {through} runs got anything through.")
    return 1 if through else 0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulations.injection", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--all", action="store_true", help="every text in every place, which takes the better part of an hour"
    )
    parser.add_argument("--place", help="only this one")
    parser.add_argument("--technique", help="only this one")
    return parser.parse_args(arguments)


def _count(tally: Tally, text: Hostile, outcome: Outcome) -> None:
    tally.runs += 1
    tally.techniques.add(text.technique)
    tally.obeyed += outcome.obeyed
    tally.breaches += bool(outcome.breaches)
    if outcome.refused:
        tally.refusals[shown(outcome.refused.replace("\n", " "), _REFUSAL)] += 1


def _print(tallies: dict[str, Tally], console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for head in ("place", "techniques", "runs", "refused", "obeyed", "through"):
        table.add_column(head, justify="left" if head in ("place", "techniques") else "right")
    for name, tally in tallies.items():
        techniques = f"{len(tally.techniques)}: {', '.join(sorted(tally.techniques))}"
        counts = (tally.runs, tally.refusals.total(), tally.obeyed, tally.breaches)
        table.add_row(name, Text(techniques if len(techniques) < 60 else f"{len(tally.techniques)}"), *map(str, counts))
    console.print(table)
    for name, tally in tallies.items():
        for sentence, _ in tally.refusals.most_common(1):
            console.print(Text(f"{name}, refused: {sentence}"))


if __name__ == "__main__":
    sys.exit(main())
