"""What the papers found, as figures to put beside one's own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A statement of a paper with its figures, and where it stands there."""

    paper: str
    arxiv: str
    statement: str
    where: str


LITERATURE = (
    Finding(
        "Houlsby et al. 2019",
        "1902.00751",
        "Mean validation accuracy over eight GLUE tasks, BERT-large, sizes m = 8 / 64 / 256: "
        "86.2 / 85.8 / 85.7 %. Accuracy hardly depends on the size.",
        "section 3.6",
    ),
    Finding(
        "Houlsby et al. 2019",
        "1902.00751",
        "GLUE score 80.0 with adapters (3.6 % of the parameters for each task), 80.4 with full "
        "fine-tuning, BERT-large.",
        "table 1",
    ),
    Finding(
        "Pfeiffer et al. 2020",
        "2005.00247",
        "One adapter in each block is enough: after the feed-forward sub-layer.",
        "the configuration that they search for and use",
    ),
    Finding(
        "He et al. 2022",
        "2110.04366",
        "Parallel beats sequential at the feed-forward sub-layer: by 1.7 ROUGE-2 on XSum and 0.8 "
        "BLEU on en-ro.",
        "table 3",
    ),
    Finding(
        "He et al. 2022",
        "2110.04366",
        "The feed-forward sub-layer makes better use of added parameters than attention does; with "
        "0.1 % of the parameters the heads of attention are the better place.",
        "figure 5, table 4",
    ),
)
