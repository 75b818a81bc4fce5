"""A second hold-out of random mistakes: other kinds than in `mutations.py`, and two at once.

    python tests/exercises/more_mutations.py 200 0      # how many, seed; prints the figures

The hints were written before these were drawn. Other kinds: operands and arguments exchanged, one
name for another, `*` for `@`, another function, a keyword or a statement in the wrong place.
"""

from __future__ import annotations

import ast
import random
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from exercises.mutations import (
    EXERCISES,
    Mutation,
    changes,
    in_functions,
    main,
    mutation,
    put,
    short,
    solved_lines,
)
from exercises.wrong_solutions import solution

OTHER_KINDS = (  # a cause that is named for one of them has to be read by a person
    "exchanged", "elementwise", "sum for product", "keyword left out", "not flat",
    "another function", "another name", "another number",
)  # fmt: skip
Place = tuple[int, str, ast.AST | None]  # which node, the kind, what stands there instead
OTHER = {
    "maximum": "minimum", "sqrt": "square", "zeros": "ones", "swapaxes": "reshape",
    "any": "all", "sum": "max", "mean": "std", "abs": "square", "float32": "float64",
}  # fmt: skip


def other_changes(node: ast.AST, names: list[str]) -> Iterator[tuple[str, ast.AST | None]]:
    """What may stand in place of `node`, of kinds that `mutations.py` has not."""
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Sub | ast.Div | ast.Pow):
            yield "exchanged", ast.BinOp(node.right, node.op, node.left)
        if isinstance(node.op, ast.MatMult):
            yield "elementwise", ast.BinOp(node.left, ast.Mult(), node.right)
        if isinstance(node.op, ast.Mult):
            yield "sum for product", ast.BinOp(node.left, ast.Add(), node.right)
    if isinstance(node, ast.Call):
        if len(node.args) == 2:
            yield "exchanged", ast.Call(node.func, node.args[::-1], node.keywords)
        for i in range(len(node.keywords)):
            rest = [*node.keywords[:i], *node.keywords[i + 1 :]]
            yield "keyword left out", ast.Call(node.func, node.args, rest)
        if isinstance(node.func, ast.Name) and node.func.id == "flat":
            yield "not flat", node.args[0]
    if isinstance(node, ast.Attribute) and node.attr in OTHER:
        yield "another function", ast.Attribute(node.value, OTHER[node.attr], node.ctx)
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
        for other in ("w_down", "w_up", "b_down", "b_up", "a", "b", "m", "v", "weight", "bias"):
            same = {other, node.attr} <= {"w_down", "w_up", "b_down", "b_up"}
            pairs = ({"a", "b"}, {"m", "v"}, {"weight", "bias"})
            if other != node.attr and (same or {other, node.attr} in pairs):
                yield "another name", ast.Attribute(node.value, other, node.ctx)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
        for other in names:
            if other != node.id:
                yield "another name", ast.Name(other, node.ctx)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value:
        yield "another number", ast.Constant(node.value * 2)
    if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load) and len(node.elts) > 1:
        yield "exchanged", ast.Tuple([*node.elts[1:], node.elts[0]], node.ctx)


def single(exercise: int) -> list[Place]:
    """Every place and other change of an exercise."""
    tree, written = ast.parse(solution(exercise)), solved_lines(exercise)
    local = local_names(tree)
    return [
        (i, *change)
        for i, node in enumerate(in_functions(tree))
        if getattr(node, "lineno", None) in written
        for change in other_changes(node, local.get(id(node), []))
    ]


def local_names(tree: ast.AST) -> dict[int, list[str]]:
    """Node -> the arguments and variables of the function that it stands in."""
    found = {}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            stored = {n.id for n in ast.walk(function)
                      if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}  # fmt: skip
            names = stored | {a.arg for a in function.args.args}
            for node in ast.walk(function):
                found[id(node)] = sorted(names - {"self", "name"})
    return found


def double(exercise: int, rng: random.Random) -> Mutation | None:
    """Two of the changes of `mutations.py` at once; None if one is inside the other."""
    text, written = solution(exercise), solved_lines(exercise)
    tree = ast.parse(text)
    nodes = in_functions(tree)
    places = [
        (node, *change)
        for node in nodes
        if getattr(node, "lineno", None) in written
        for change in changes(node)
    ]
    (a, kind_a, new_a), (b, kind_b, new_b) = rng.sample(places, 2)
    if any(n is b for n in ast.walk(a)) or any(n is a for n in ast.walk(b)):
        return None
    before = f"{short(ast.unparse(a))} and {short(ast.unparse(b))}"
    after = " and ".join("" if n is None else short(ast.unparse(n)) for n in (new_a, new_b))
    put(tree, a, new_a)
    put(tree, b, new_b)
    try:
        source = ast.unparse(ast.fix_missing_locations(tree))
        compile(source, "mutation", "exec")
    except (SyntaxError, ValueError):
        return None
    return Mutation(exercise, f"{kind_a} + {kind_b}", a.lineno, before, after, source)


@cache
def more(n: int, seed: int = 0) -> tuple[Mutation, ...]:
    """n different mutations, half of them single and half double; the exercises in turn."""
    rng = random.Random(seed)
    pools = {exercise: single(exercise) for exercise in EXERCISES}
    for pool in pools.values():
        rng.shuffle(pool)
    drawn: dict[str, Mutation] = {}
    made: Mutation | None
    while len(drawn) < n:
        for exercise in EXERCISES:
            if pools[exercise]:
                made = mutation(exercise, solution(exercise), *pools[exercise].pop())
                if made is not None and len(drawn) < n:
                    drawn.setdefault(made.source, made)
            made = double(exercise, rng)
            if made is not None and len(drawn) < n:
                drawn.setdefault(made.source, made)
    return tuple(drawn.values())


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    main(more(*numbers, *[200, 0][len(numbers) :]))
