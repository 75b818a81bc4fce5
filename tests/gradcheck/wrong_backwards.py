"""A set of wrong backward passes, and what gradcheck says about each.

    python tests/gradcheck/wrong_backwards.py [FILE]

prints for each whether it is caught, and whether the cause it names is right, wrong, or none is
named; the counts go into FILE as JSON. A mistake comes with the pattern of the right cause, or None
where no cause can be told from the numbers. Advice that matches neither this pattern nor
UNNAMED names a wrong cause.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections import Counter
from pathlib import Path

from mistakes import MISTAKES
from wrong_layers import (
    Wrong,
    function_mistakes,
    linear_mistakes,
    loss_mistakes,
    model_mistakes,
)
from wrong_states import state_mistakes

from minitransformer.gradcheck import gradcheck

UNNAMED = (
    r"in no pattern known|look for a factor of forward|from one number no cause|is wrong only at|"
    r"every sampled entry|arrays are wrong; the backward pass reaches"
)
RIGHT, NONE, WRONG, MISSED = "cause right", "cause unnamed", "CAUSE WRONG", "NOT CAUGHT"


def earlier_mistakes() -> list[Wrong]:
    """Those of `mistakes.py`, where the right advice stands beside each; some have two causes."""
    also = {"overwritten": "|did not double", "frozen, assigned": "|did not double"}
    return [
        Wrong("one each", name, module, (x,), cause + also.get(name, ""))
        for name, (module, x, cause) in MISTAKES.items()
        if cause is not None
    ]


def wrong_backwards() -> list[Wrong]:
    groups = (linear_mistakes, function_mistakes, model_mistakes, loss_mistakes, state_mistakes)
    return [wrong for group in (*groups, earlier_mistakes) for wrong in group()]


def verdict(wrong: Wrong) -> tuple[str, tuple[str, ...]]:
    """What came out, and everything that gradcheck advises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = gradcheck(wrong.module, *wrong.inputs, raises=False, **wrong.options)
    if report.passed:
        return MISSED, ()
    named = [text for text in report.advice if not is_unnamed(text, wrong.cause)]
    if not named:
        return NONE, report.advice
    right = wrong.cause is not None and all(re.search(wrong.cause, text) for text in named)
    return (RIGHT if right else WRONG), report.advice


def is_unnamed(text: str, cause: str | None) -> bool:
    """Whether advice names no cause. A place alone is none, unless a cause follows it."""
    if cause is not None and re.search(cause, text):
        return False
    return bool(re.search(UNNAMED, text)) and not re.search(r"np\.add| = |forgets that", text)


def table(to: str | None = None) -> None:
    """Print each; with `to`, the counts go into that file as JSON, too."""
    counts: Counter[str] = Counter()
    for wrong in wrong_backwards():
        result, advice = verdict(wrong)
        counts[result] += 1
        print(f"{wrong.family:17} {wrong.name:36} {result}")
        if result in (WRONG, MISSED):
            print("".join(f"    {text}\n" for text in advice), end="")
    caught = counts.total() - counts[MISSED]
    print(f"\n{counts.total()} wrong backward passes, {caught} caught: ", end="")
    print(", ".join(f"{kind} {counts[kind]}" for kind in (RIGHT, NONE, WRONG)))
    if to is not None:
        found = {"passes": counts.total(), "caught": caught}
        found |= {kind.lower(): counts[kind] for kind in (RIGHT, NONE, WRONG)}
        Path(to).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    table(*sys.argv[1:])
