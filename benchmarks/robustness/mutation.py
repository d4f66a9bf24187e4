"""What a mutant is: which single changes of a source file are tried."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = Path("src/lazyrich")
OTHER = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.RShift: ast.LShift,
    ast.LShift: ast.RShift, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
OTHERS = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip
PAIRS = (
    ("min", "max"), ("amin", "amax"), ("argmin", "argmax"), ("any", "all"), ("clamp_min", "clamp_max"), ("triu", "tril"),
    ("minimum", "maximum"), ("sum", "mean"), ("sqrt", "square"), ("log", "exp"), ("floor", "ceil"),
)  # fmt: skip
NAMES = dict(PAIRS) | {b: a for a, b in PAIRS}


@dataclass
class Mutant:
    """One change, and what became of it."""

    file: str
    place: str  # the function
    line: int
    lines: list[int]  # those whose tests are tried
    before: str
    after: str
    number: int  # of the same change in the same function
    source: str = field(repr=False)
    end: str = "not tried"  # killed, timeout, survived, "no test"

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        return self.file, self.place, self.before, self.after, self.number


def shown(mutant: Mutant) -> str:
    one_line = [" ".join(text.split()) for text in (mutant.before, mutant.after)]
    return f"{mutant.file}:{mutant.line} {mutant.place}: `{one_line[0]}` → `{one_line[1]}`"


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that may stand in a node's place."""

    def like(**other: Any) -> ast.AST:
        return type(node)(**{**dict(ast.iter_fields(node)), **other})

    match node:
        case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op):
            if type(op) in OTHER:
                yield like(op=OTHER[type(op)]())
            if isinstance(node, ast.AugAssign):
                yield ast.Assign(targets=[node.target], value=node.value)
        case ast.Compare():
            for i, op in enumerate(node.ops):
                for other in OTHERS[type(op)]:
                    yield like(ops=[*node.ops[:i], other(), *node.ops[i + 1 :]])
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.Constant(value=bool(held)):
            yield ast.Constant(not held)
        case ast.Constant(value=int(held)):
            yield ast.Constant(held + 1)
        case ast.Constant(value=float(held)):
            yield ast.Constant(2 * held if held else 1.0)
        case ast.Constant(value=str(held)):
            yield ast.Constant("XX" + held)
        case ast.Call():
            for i, given in enumerate(node.keywords):
                if given.arg is not None:
                    yield like(keywords=node.keywords[:i] + node.keywords[i + 1 :])
        case ast.Attribute(attr=name) if name in NAMES:
            yield like(attr=NAMES[name])
        case ast.Name(id=name) if name in NAMES:
            yield like(id=NAMES[name])
        case ast.If() | ast.IfExp() | ast.While():
            yield like(test=ast.UnaryOp(ast.Not(), node.test))
        case ast.comprehension() if node.ifs:
            yield like(ifs=[])
        case ast.Slice():
            for bound in ("lower", "upper"):
                if getattr(node, bound) is not None:
                    yield like(**{bound: None})
        case ast.Expr() | ast.Raise():
            yield ast.Pass()
        case ast.Return(value=value) if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))
        case ast.Assign() if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield like(value=ast.Constant(None))
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()


def left_alone(node: ast.AST, parent: ast.AST, name: str) -> bool:
    """Text for people, annotations and decorators, which no test should pin down or which mean nothing at run time."""
    if isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom)) or name in ("annotation", "returns", "decorator_list"):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True  # a docstring
    if isinstance(parent, ast.Raise):
        return True
    if isinstance(node, ast.Assign) and isinstance(node.value, (ast.Call, ast.Subscript)):  # a TypeVar, a Literal
        called = node.value.func if isinstance(node.value, ast.Call) else node.value.value
        return isinstance(called, ast.Name) and called.id in ("TypeVar", "Literal")
    return False


def mutants_of(file: str) -> list[Mutant]:
    """All mutants of a file, in the order of its lines."""
    tree = ast.parse((ROOT / PACKAGE / file).read_text(encoding="utf-8"))
    found: list[Mutant] = []
    counts: dict[tuple[str, str, str], int] = {}

    def visit(node: ast.AST, place: str, statement: ast.stmt | None) -> None:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            place = f"{place}.{node.name}".lstrip(".")
        if isinstance(node, ast.stmt):
            statement = node
        for name, value in ast.iter_fields(node):
            listed = value if isinstance(value, list) else [value]
            for i, child in enumerate(listed):
                if not isinstance(child, ast.AST) or left_alone(child, node, name):
                    continue
                for other in changed(child):
                    add(node, name, i if isinstance(value, list) else None, child, other, place, statement)
                visit(child, place, statement)

    def add(
        parent: ast.AST, name: str, i: int | None, old: ast.AST, new: ast.AST, place: str, statement: ast.stmt | None
    ) -> None:
        held = getattr(parent, name)
        setattr(parent, name, new) if i is None else held.__setitem__(i, new)
        after, source = ast.unparse(ast.fix_missing_locations(new)), ast.unparse(ast.fix_missing_locations(tree))
        setattr(parent, name, old) if i is None else held.__setitem__(i, old)
        before = ast.unparse(old)
        if isinstance(old, (ast.If, ast.While)):
            before, after = (text.partition(":\n")[0] for text in (before, after))
        within = old if isinstance(old, ast.stmt) else statement
        if within is None:
            return
        body = getattr(within, "body", None)  # of a statement that holds others, what stands before them
        last = max(within.lineno, body[0].lineno - 1) if body else within.end_lineno or within.lineno
        count = counts.get((place, before, after), 0)
        counts[place, before, after] = count + 1
        line = getattr(old, "lineno", within.lineno)
        found.append(Mutant(file, place, line, list(range(within.lineno, last + 1)), before, after, count, source))

    visit(tree, "", None)
    return sorted(found, key=lambda m: m.line)
