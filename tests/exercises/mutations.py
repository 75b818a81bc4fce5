"""Random mistakes: each small change that a program can make to a solution, and what is said.

    python tests/exercises/mutations.py 300 0      # how many, seed; prints the figures

A mutation changes one place in what a student writes: a sign, an axis, a transpose, a factor, a
term that is dropped, a number that is off by one, a condition, a statement that is left out.
"""

from __future__ import annotations

import ast
import copy
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from exercises.wrong_solutions import SOLUTIONS, solution

PAGES = SOLUTIONS.parent / "pages"
EXERCISES = (1, 2, 3, 4, 5, 6, 7, 8)  # the ninth runs a study for each
SECONDS = 60  # of a mutation


@dataclass(frozen=True)
class Mutation:
    """`kind`, where it is, and the whole mutated solution."""

    exercise: int
    kind: str
    line: int
    before: str
    after: str
    source: str

    @property
    def name(self) -> str:
        return f"{self.exercise}:{self.line} {self.kind}: {self.before} -> {self.after}"


def mutations(exercise: int) -> Iterator[Callable[[], Mutation | None]]:
    """One function for each, in the order of the file; it makes the mutation (None: no Python)."""
    text, written = solution(exercise), solved_lines(exercise)
    tree = ast.parse(text)
    for i, node in enumerate(in_functions(tree)):
        if getattr(node, "lineno", None) in written:
            for kind, replaced in changes(node):
                yield partial(mutation, exercise, text, i, kind, replaced)


def mutation(
    exercise: int, text: str, i: int, kind: str, replaced: ast.AST | None
) -> Mutation | None:
    """The solution with `replaced` in place of the i-th node."""
    tree = ast.parse(text)
    node = in_functions(tree)[i]
    before = short(ast.unparse(node))
    put(tree, node, copy.deepcopy(replaced))
    try:
        source = ast.unparse(ast.fix_missing_locations(tree))
        compile(source, "mutation", "exec")
    except (SyntaxError, ValueError):
        return None
    after = "" if replaced is None else short(ast.unparse(replaced))
    return Mutation(exercise, kind, node.lineno, before, after, source)


def in_functions(tree: ast.AST) -> list[ast.AST]:
    """What stands inside functions. Answers to questions are not mutated: they are just wrong."""
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    inside = {id(n) for f in functions for n in ast.walk(f) if n is not f}
    return [n for n in ast.walk(tree) if id(n) in inside]


def short(text: str) -> str:
    return " ".join(text.split())[:70]


def solved_lines(exercise: int) -> set[int]:
    """The lines of the solution file that stand between the markers of the page."""
    (page,) = PAGES.glob(f"{exercise:02d}_*.py")
    blocks = page.read_text("utf-8").split("### BEGIN SOLUTION\n")[1:]
    lines = solution(exercise).splitlines()
    found: set[int] = set()
    for block in blocks:
        body = block.split("### END SOLUTION")[0].rstrip().splitlines()
        for start in range(len(lines)):
            if [x.rstrip() for x in lines[start : start + len(body)]] == [x.rstrip() for x in body]:
                found |= set(range(start + 1, start + 1 + len(body)))
    return found


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:
    """What may stand in place of `node`; None: nothing."""
    if isinstance(node, ast.BinOp):
        left, op, right = node.left, node.op, node.right
        if isinstance(op, ast.Add | ast.Sub):
            other = ast.Sub() if isinstance(op, ast.Add) else ast.Add()
            yield "sign", ast.BinOp(left, other, right)
            yield "dropped term", left
            yield "dropped term", right
        if isinstance(op, ast.Mult | ast.Div):
            other = ast.Div() if isinstance(op, ast.Mult) else ast.Mult()
            yield "factor", ast.BinOp(left, other, right)
            yield "dropped term", left
            yield "dropped term", right
        if isinstance(op, ast.MatMult):
            yield "transpose", ast.BinOp(right, op, left)
            yield "factor", ast.BinOp(ast.Constant(2), ast.Mult(), node)
            yield "sign", ast.UnaryOp(ast.USub(), node)
        if isinstance(op, ast.Pow):
            yield "dropped term", left
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add | ast.Sub):
        other = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        yield "sign", ast.AugAssign(node.target, other, node.value)
    if isinstance(node, ast.Attribute) and node.attr == "T":
        yield "transpose", node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "swapaxes":
            yield "transpose", node.func.value
        if node.func.attr == "accumulate":
            half = ast.BinOp(ast.Constant(0.5), ast.Mult(), node.args[0])
            yield "factor", ast.Call(node.func, [half], [])
            yield "sign", ast.Call(node.func, [ast.UnaryOp(ast.USub(), node.args[0])], [])
        for old, new in (("sum", "mean"), ("mean", "sum")):
            if node.func.attr == old:
                func = ast.Attribute(node.func.value, new, ast.Load())
                yield "factor", ast.Call(func, node.args, node.keywords)
    if isinstance(node, ast.keyword) and node.arg == "axis":
        for axis in (0, -1, -2):
            if ast.unparse(node.value) != str(axis):
                yield "axis", ast.keyword("axis", ast.Constant(axis))
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield "off by one", ast.Constant(node.value + 1)
        yield "off by one", ast.Constant(node.value - 1)
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Gt | ast.GtE):
        other_op = ast.GtE() if isinstance(node.ops[0], ast.Gt) else ast.Gt()
        yield "off by one", ast.Compare(node.left, [other_op], node.comparators)
        yield "condition", ast.Compare(node.left, [ast.Lt()], node.comparators)
    if isinstance(node, ast.If):
        yield "condition", ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
        yield "condition", ast.If(ast.Constant(True), node.body, node.orelse)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "dropped statement", ast.Pass()


def put(tree: ast.AST, old: ast.AST, new: ast.AST | None) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
                return
            if isinstance(value, list) and any(item is old for item in value):
                value[[item is old for item in value].index(True)] = new
                return


@cache
def sample(n: int, seed: int = 0) -> tuple[Mutation, ...]:
    """n different mutations drawn at random, the same for the same seed; the exercises in turn."""
    rng = random.Random(seed)
    pools = [list(mutations(exercise)) for exercise in EXERCISES]
    for pool in pools:
        rng.shuffle(pool)
    drawn: dict[str, Mutation] = {}
    while len(drawn) < n and any(pools):
        for pool in pools:
            if pool and len(drawn) < n and (made := pool.pop()()) is not None:
                drawn.setdefault(made.source, made)
    return tuple(drawn.values())


# -- what is said of them ------------------------------------------------------------------

FACTS = (  # what can be seen, and names no cause
    r"in no pattern known here", r", in line \d", r"has shape", r"NaN or infinity",
    r"arrays are wrong; the backward pass reaches", r"gradients are wrong:", r"more that may have",
    r"no gradient reaches", r"wrong only at", r"to a parameter of shape", r"is not written yet",
    r"merged model gives other values", r"the loss is not finite", r"it visits", r"its drift is",
    r"has standard deviation", r"has an entry of size", r"has mean", r"changes by",
    r"forward saves",
    r"matrix products; \d", r"one entry by|should be", r"is None",
    r"to the precision of float(32|64)",
    r"got dy of shape", r"cannot go on", r"numbers for each parameter",
    r"these are numbers, not bytes", r"has nothing to read",
    r"times the norm", r"gives another .* without an error", r"has two gradients",
    r"first make the part `(clip|merged)`", r"trains, and should not", r"is no number, but",
    r"it is dy itself", r"are equal: draw them at random", r"could not be broadcast together",
    r"could not broadcast input array", r"in place of one of|'NoneType'",
    r"is there a loop without an end", r"expected (one array|three|two arrays)", r"exactly 0",
    r"is not zero: biases start at 0",
)  # fmt: skip
CAUSES = (  # what is named, and the kinds of mutations of which it is true; the first that fits
    # ("... adds nothing to it, or nothing but zeros")
    (r"all zeros", {"off by one", "factor", "dropped term", "sign", "condition"}),
    (r"is not subtracted", {"dropped term", "factor"}),
    (r"sign is flipped|subtracted|goes up the gradient|is added, but", {"sign"}),
    (r"(?<!shape of its )transpose|in the wrong order|last two axes", {"transpose"}),
    (r"it takes z, before the ReLU|share as well|that is in float64", set[str]()),
    (r"the ReLU is not passed", {"dropped term", "off by one"}),  # a > -1 passes everything
    (r"a sum stands|sums stand|a mean stands|a mean is taken", {"factor"}),
    (r"constant factor", {"factor", "dropped term", "off by one"}),
    (r"backward added nothing|returned None|must return|through the update is missing|"
     r"through f is", {"dropped statement", "condition", "dropped term"}),
    (r"backward returns the|a gradient that nobody reads", {"condition", "dropped statement"}),
    (r"frozen parameter (has|of)", {"condition"}),
    (r"would be wrong: whether one array is trained", {"condition"}),
    (r"the last step are still there|is missing, or comes before", {"dropped statement"}),
    (r"are not clipped", {"dropped statement", "dropped term", "off by one", "factor", "condition",
                          "sign"}),
    (r"plays? no part|is missing|are missing|without the|not divided|p in front|is one of dp|"
     r"does not decay|without p|is not added|the gradient alone|is counted|"
     r"it is the plain weight|absolute size|the square",
     {"dropped term", "off by one", "condition"}),
    (r"both biases|each factor a gradient|weight gradients of frozen|that is zero|the inverse",
     {"dropped term", "off by one", "condition", "factor", "sign", "transpose"}),
    (r"the sum goes over the queries|over the columns as well|at a single position|not summed|"
     r"over some of the leading axes",
     {"axis", "off by one", "dropped term"}),
    (r"is one number for all|are one number for all|over everything", {"keyword left out"}),
    (r"multiplied by sqrt|divided by d_head|scaled by", {"factor"}),
    (r"bias correction|corrected|exchanged|two betas", {"off by one", "dropped term"}),
    (r"the bias decays as well|decay is not multiplied|inside the root|of the size of g\^2",
     {"dropped term", "condition", "off by one"}),
    (r"made larger|nothing is scaled|after clipping|sum of the norms", {"condition"}),
    (r"With a single sentence", {"axis", "off by one"}),
    (r"in place(?! of)|changes an array|is float|in float32|an earlier|after another call",
     set[str]()),
    (r"twice too large", {"factor", "off by one"}),
)  # fmt: skip
READ = (  # of other mutations: what a person has read, and found true of them; change, sentence
    # What was seen, whatever its cause: an array that is given, or not, or that nobody asked for.
    (r"", r"backward added nothing|all zeros|returned None|nothing is scaled"),
    (r"another name: self\.", r"frozen parameter has|whether one array is trained must not"),
    (r"not flat", r"over some of the leading axes|not summed over the leading axes"),
    (r"exchanged: np\.linalg\.norm", r"the inverse"),
    (r"float32 -> np.float64", r"is float64"),
    (r"exchanged: (u - mean|dp - along)", r"sign is flipped"),
    (r"2:12 another number: 1 -> 2", r"the sum goes over the queries"),
    (r"another name: (df|du) -> dy", r"scaling"),
    (r"another name: a -> z", r"ReLU"),
    (r"another name: dy -> df", r"s multiplies the skip connection's share as well"),
    (r"8:32 another number: 4 -> 8", r"that is in float64"),
    (r"another name: u -> (mean|x_hat|rstd)", r"is not subtracted"),  # the mean is 0
    (r"8:11 another name: m -> d", r"both biases count as long as d"),
    (r"6:21 another number: 2 -> 4", r"size of g\^2, where"),
    (r"another name: mask -> scale", r"without the mask"),  # a number for all scores alike
    (r"another name: [BT] -> frozen", r"Q K\^T and P V are missing"),  # frozen is False: 0
    (r"another name: weight_gradients -> linears", r"of frozen Linears are counted"),
    (r"6:14 another number: 1 -> 2", r"a t that is one too large"),
)


def verdicts(mutation: Mutation, hint: str) -> Iterator[tuple[str, str]]:
    """For each sentence of a hint: "fact", "right", "WRONG" or "unknown", and the sentence."""
    made = set(mutation.kind.split(" + "))
    for sentence in hint.splitlines():
        sentence = sentence.removeprefix("not checked, because forward is not right yet. ")
        for pattern, kinds in CAUSES:
            if re.search(pattern, sentence) and not re.search(r"no pattern|in line", sentence):
                right = made & kinds or any(
                    re.search(change, mutation.name) and re.search(said, sentence)
                    for change, said in READ
                )
                yield ("right" if right else "WRONG"), sentence
                break
        else:
            fact = any(re.search(pattern, sentence) for pattern in FACTS)
            yield ("fact" if fact else "unknown"), sentence


def examine(mutation: Mutation, folder: Path) -> tuple[bool, list[tuple[str, str]]]:
    """Whether a part was lost, and the verdicts on all that was said."""
    from minitransformer.exercises import check
    from minitransformer.exercises.grading.child import at_most

    path = folder / "mutation.py"
    path.write_text(mutation.source, "utf-8")
    with at_most(SECONDS):  # a loop may have lost its end
        report = check(mutation.exercise, path, "ada")
    lost = [item for item in report.items if not item.passed]
    return bool(lost), [v for item in lost for v in verdicts(mutation, item.hint)]


EQUIVALENT = (  # the mutated code does the same; a test shows it
    ("axis=0", "axis=-2"),  # of an array with two axes
    ("np.abs(draw) > 2", "np.abs(draw) >= 2"),  # no draw is exactly 2
    ("norm > max_norm", "norm >= max_norm"),  # a factor of 1
)
EQUIVALENT_HERE = (  # the same at this place: exercise, line
    # q, k, v and the context have the same width in every head.
    *((2, line, "q", other) for line in (24, 31) for other in ("k", "v", "dcontext")),
    *((3, 28, "y", other) for other in ("h", "f")),  # of the same shape
    (3, 25, "np.maximum(z, 0)", "np.maximum(0, z)"),
    (4, 23, "np.maximum(h @ w_down + b_down, 0)", "np.maximum(0, h @ w_down + b_down)"),
    # What is called m is kept in v, and the other way round.
    (6, 19, "(self.m[name], self.v[name])", "(self.v[name], self.m[name])"),
)


def main(drawn: Sequence[Mutation]) -> None:
    counts: Counter[str] = Counter()
    named: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for mutation in drawn:
            caught, said = examine(mutation, Path(folder))
            same = same_anyway(mutation)
            counts["equivalent" if same else "caught" if caught else "MISSED"] += 1
            if not caught and not same:
                print(f"MISSED {mutation.name}")
            verdict = {v for v, _ in said}
            for bad in {"WRONG", "unknown"} & verdict:
                print(bad, mutation.name, *(s for v, s in said if v == bad), sep="\n    ")
            best = next((v for v in ("WRONG", "unknown", "right", "fact") if v in verdict), "none")
            named[best] += caught
    print(f"{sum(counts.values())} mutations: {dict(counts)}")
    print(f"named a true cause: {named['right']}; facts alone: {named['fact']}; "
          f"a wrong cause: {named['WRONG']}; not judged: {named['unknown']}")  # fmt: skip


def same_anyway(mutation: Mutation) -> bool:
    """Whether the mutated solution computes the same for all inputs that a model has."""
    if axes_in_order(mutation.source) == axes_in_order(solution(mutation.exercise)):
        return True
    change = (mutation.before, mutation.after)
    if " + " in mutation.kind:
        both = zip(*(text.split(" and ") for text in change), strict=False)
        return all(one in EQUIVALENT for one in both)
    return change in EQUIVALENT or (mutation.exercise, mutation.line, *change) in EQUIVALENT_HERE


def axes_in_order(text: str) -> str:
    """The code without comments, with axes to be exchanged named in one order."""
    return ast.unparse(ast.parse(text)).replace("swapaxes(-2, -1)", "swapaxes(-1, -2)")


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    main(sample(*numbers, *[300, 0][len(numbers) :]))
