"""What the papers found, put beside the results of a study: what agrees, and what does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from .results import Result, reference

Pair = tuple[Result, Result]
AGREES, DISAGREES, OPEN = "agrees", "does not agree", "cannot be told"


@dataclass(frozen=True)
class Finding:
    """A statement of a paper with its figures, and where it stands there.

    `pairs`: of the results on one task, those that it compares; None where a study has no such.
    `first_is_better`: whether it says so, or that the two of a pair are nearly the same.
    """

    paper: str
    arxiv: str
    statement: str
    where: str
    pairs: Callable[[Sequence[Result]], Iterator[Pair]]
    first_is_better: bool = False


@dataclass(frozen=True)
class Comparison:
    """A pair of results on one task, and what it says about a finding."""

    finding: Finding
    first: Result
    second: Result

    @property
    def difference(self) -> float:
        """Test accuracy of the first less that of the second."""
        return self.first.accuracy - self.second.accuracy

    @property
    def standard_error(self) -> float:
        """Of the difference, as if the two had different test examples: rather too large."""
        return float((self.first.standard_error**2 + self.second.standard_error**2) ** 0.5)

    @property
    def verdict(self) -> str:
        return verdict(self.difference, self.standard_error, self.finding.first_is_better)


def verdict(difference: float, standard_error: float, first_is_better: bool = False) -> str:
    """What a difference says about a finding, with two standard errors as what chance may do.

    `first_is_better`: the finding, or that the two are nearly the same.
    """
    if abs(difference) <= 2 * standard_error:
        return OPEN if first_is_better else AGREES
    return AGREES if first_is_better and difference > 0 else DISAGREES


def compare(results: Sequence[Result]) -> list[Comparison]:
    """Every finding on every task, as far as the results have what it compares."""
    tasks = dict.fromkeys(result.task for result in results)
    return [
        Comparison(finding, *pair)
        for finding in LITERATURE
        for task in tasks
        for pair in finding.pairs([result for result in results if result.task == task])
    ]


# -- what is compared ----------------------------------------------------------------------


def adapters(
    results: Sequence[Result], placement: str | None = None, sites: str | None = None
) -> list[Result]:
    """In all blocks, at one placement (None: any), smallest first; `sites` as the study says it."""
    found = [
        result
        for result in results
        if result.method == "adapter"
        and placement in (None, result.cell.values.get("placement", "after_norm"))
        and result.cell.values.get("sites") == sites
        and "layers" not in result.cell.values
    ]
    return sorted(found, key=lambda result: result.size or 0)


def smallest_and_largest(results: Sequence[Result]) -> Iterator[Pair]:
    sizes = adapters(results, "houlsby")
    if len(sizes) > 1:
        yield sizes[0], sizes[-1]


def best_adapter_and_full(results: Sequence[Result]) -> Iterator[Pair]:
    """The size that is best on validation."""
    sizes = adapters(results, "houlsby")
    full = reference(results, results[0].task)
    if sizes and full is not None:
        yield max(sizes, key=lambda result: result.rows[0].validation_accuracy or 0.0), full


def same_size(
    results: Sequence[Result],
    first: tuple[str, str | None],
    second: tuple[str, str | None],
) -> Iterator[Pair]:
    """Two kinds of adapters (placement, sites) wherever both were run with the same m."""
    others = {result.size: result for result in adapters(results, *second)}
    for result in adapters(results, *first):
        if result.size in others:
            yield result, others[result.size]


LITERATURE = (
    Finding(
        "Houlsby et al. 2019",
        "1902.00751",
        "Mean validation accuracy over eight GLUE tasks, BERT-large, sizes m = 8 / 64 / 256: "
        "86.2 / 85.8 / 85.7 %. Accuracy hardly depends on the size.",
        "section 3.6",
        smallest_and_largest,
    ),
    Finding(
        "Houlsby et al. 2019",
        "1902.00751",
        "GLUE score 80.0 with adapters (3.6 % of the parameters for each task), 80.4 with full "
        "fine-tuning, BERT-large.",
        "table 1",
        best_adapter_and_full,
    ),
    Finding(
        "Pfeiffer et al. 2020",
        "2005.00247",
        "One adapter in each block is enough: after the feed-forward sub-layer.",
        "the configuration that they search for and use",
        partial(same_size, first=("pfeiffer", None), second=("houlsby", None)),
    ),
    Finding(
        "He et al. 2022",
        "2110.04366",
        "Parallel beats sequential at the feed-forward sub-layer: by 1.7 ROUGE-2 on XSum and 0.8 "
        "BLEU on en-ro.",
        "table 3",
        partial(same_size, first=("parallel", None), second=("houlsby", "ffn")),
        first_is_better=True,
    ),
    Finding(
        "He et al. 2022",
        "2110.04366",
        "The feed-forward sub-layer makes better use of added parameters than attention does; with "
        "0.1 % of the parameters the heads of attention are the better place.",
        "figure 5, table 4",
        partial(same_size, first=("houlsby", "ffn"), second=("houlsby", "attention")),
        first_is_better=True,
    ),
)
