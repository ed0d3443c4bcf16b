"""Small changes to Python source: which there are, where, and what the source becomes.

A change replaces the exact segment of one node; the rest of the file stays as it is, byte by byte. No change is made to
annotations, type aliases, decorators, docstrings and imports, nor to what only makes the text of an error.
"""

from __future__ import annotations

import ast
import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

BOUNDARY = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
OPPOSITE = {
    ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any", "sin": "cos", "cos": "sin", "floor": "ceil"}
COUNTING = {"len", "range", "enumerate", "iter", "next", "sum"}  # an argument in their place is no such value
TYPES = {"str", "int", "float", "bool", "dict", "list", "tuple", "set", "bytes", "None"}

Named = tuple[str, ast.AST]  # an operator, and what it makes of a node


@dataclass(frozen=True, order=True)
class Address:
    """The address of a mutant, independent of the file and line of its function.

    Attributes:
        function: the name in its module: `function`, `Class.method`, `function.inner`, or of a constant.
        operator: what kind of change.
        text: the mutated node, as `ast.unparse` gives it.
        occurrence: the number of the node among equal ones of the function, from 0.
        variant: the number of the change among those of the operator to this node, from 0.
    """

    function: str
    operator: str
    text: str
    occurrence: int
    variant: int


@dataclass(frozen=True)
class Change:
    """A replacement of one segment of a source; offsets are in bytes of UTF-8."""

    address: Address
    start: int
    end: int
    becomes: str

    def applied(self, source: str) -> str:
        """The source with the change."""
        raw = source.encode()
        return (raw[: self.start] + self.becomes.encode() + raw[self.end :]).decode()


@dataclass(frozen=True)
class Place:
    """A node of a function; `literal` is the f-string around it, whose parts have no positions before Python 3.12."""

    function: str
    node: ast.AST
    literal: ast.JoinedStr | None = None


# ---- where ------------------------------------------------------------


def places(tree: ast.Module) -> Iterator[Place]:
    """The nodes that may be changed, function by function, in the order of the source."""
    yield from _definitions(tree.body, "")


def _definitions(body: Iterable[ast.stmt], within: str) -> Iterator[Place]:
    """Of the statements of a module or class."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, f"{within}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _function(node, within)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and not _is_type(node.value):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name):
                yield from _walk(node.value, within + target.id, set())


def _is_type(value: ast.AST) -> bool:
    """The value of a type alias or a type variable."""
    called = value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else ""
    joined = isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr)
    return joined or isinstance(value, ast.Subscript) or called in ("TypeVar", "NewType")


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, within: str) -> Iterator[Place]:
    """Of a function: its defaults and its body."""
    name = f"{within}{node.name}"
    spoken = _spoken(node)
    for default in [*node.args.defaults, *node.args.kw_defaults]:
        if default is not None:
            yield from _walk(default, name, spoken)
    documented = ast.get_docstring(node, clean=False) is not None
    for statement in node.body[documented:]:
        yield from _walk(statement, name, spoken)


def _walk(node: ast.AST, function: str, spoken: set[str], literal: ast.JoinedStr | None = None) -> Iterator[Place]:
    """A node and those below it, without what is left out."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield from _function(node, f"{function}.")
        return
    if isinstance(node, ast.Import | ast.ImportFrom) or _speaks(node, spoken):
        return
    yield Place(function, node, literal)
    if isinstance(node, ast.Raise) or _is_error(node):
        return
    literal = literal or (node if isinstance(node, ast.JoinedStr) else None)
    for child in _children(node):
        if isinstance(child, ast.Constant) and isinstance(child.value, str) and _takes_plainly(node, child):
            continue
        yield from _walk(child, function, spoken, literal)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What is directly below a node, without annotations, and without the text and format of f-strings."""
    if isinstance(node, ast.AnnAssign):
        yield from filter(None, (node.target, node.value))
    elif isinstance(node, ast.JoinedStr):
        yield from (part.value for part in node.values if isinstance(part, ast.FormattedValue))
    elif isinstance(node, ast.Lambda):
        yield from [*node.args.defaults, node.body]
    else:
        yield from ast.iter_child_nodes(node)


def _takes_plainly(node: ast.AST, child: ast.AST) -> bool:
    """A string is an argument, and not the name of something that is looked up: mostly a part of a message."""
    if isinstance(node, ast.keyword):
        return True
    looks_up = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get"
    return isinstance(node, ast.Call) and child in node.args and not looks_up


def _is_error(node: ast.AST) -> bool:
    """An exception is made."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error")


def _speaks(node: ast.AST, spoken: set[str]) -> bool:
    """An assignment that only makes the text of an error."""
    return isinstance(node, ast.Assign) and all(isinstance(to, ast.Name) and to.id in spoken for to in node.targets)


def _spoken(function: ast.AST) -> set[str]:
    """The local names that are read for the texts of errors alone."""
    spoken: set[str] = set()
    while True:
        elsewhere: set[str] = set()
        used: set[str] = set()
        _read(function, spoken, elsewhere, used)
        found = used - elsewhere
        if found == spoken:
            return spoken
        spoken = found


def _read(node: ast.AST, spoken: set[str], elsewhere: set[str], used: set[str]) -> None:
    """Sorts the names that are read below a node by whether it is for a text."""
    if isinstance(node, ast.Raise) or _is_error(node) or _speaks(node, spoken):
        used |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)}
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        elsewhere.add(node.id)
    else:
        for child in ast.iter_child_nodes(node):
            _read(child, spoken, elsewhere, used)


# ---- what ------------------------------------------------------------


def _with(node: ast.AST, **fields: object) -> ast.AST:
    """A copy of a node with other fields."""
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def _without(items: list, at: int) -> list:
    return items[:at] + items[at + 1 :]


def _compare(node: ast.AST) -> Iterator[Named]:
    if isinstance(node, ast.Compare):
        for name, table in (("comparison boundary", BOUNDARY), ("comparison negated", OPPOSITE)):
            for at, kind in enumerate(node.ops):
                if type(kind) in table:
                    yield name, _with(node, ops=[*node.ops[:at], table[type(kind)](), *node.ops[at + 1 :]])


def _names_types(node: ast.AST) -> bool:
    """`int | None`, as `isinstance` takes it."""
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.BitOr) and _names_types(node.left) and _names_types(node.right)
    return ast.unparse(node) in TYPES


def _arithmetic(node: ast.AST) -> Iterator[Named]:
    if isinstance(node, ast.BinOp) and _names_types(node):
        yield "alternative dropped", node.left
        yield "alternative dropped", node.right
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in ARITHMETIC and not _has_text(node):
        yield "arithmetic", _with(node, op=ARITHMETIC[type(node.op)]())


def _has_text(node: ast.AST) -> bool:
    """Text is added, or the name of a file to a folder."""
    sides = ast.iter_child_nodes(node)
    return any(isinstance(side, ast.JoinedStr) or isinstance(getattr(side, "value", None), str) for side in sides)


def _constant(node: ast.AST) -> Iterator[Named]:
    if not isinstance(node, ast.Constant):
        return
    if isinstance(node.value, bool):
        yield "boolean", ast.Constant(not node.value)
    elif isinstance(node.value, int | float):
        yield "number + 1", ast.Constant(node.value + 1)
    elif isinstance(node.value, str):
        yield "string", ast.Constant(node.value + "x")


def _logic(node: ast.AST) -> Iterator[Named]:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "not removed" if isinstance(node.op, ast.Not) else "minus removed", node.operand
    if isinstance(node, ast.BoolOp):
        yield "and/or", _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        for at in range(len(node.values)):
            rest = _without(node.values, at)
            yield "operand dropped", _with(node, values=rest) if len(rest) > 1 else rest[0]


def _call(node: ast.AST) -> Iterator[Named]:
    if not isinstance(node, ast.Call) or _is_error(node):
        return
    for at, keyword in enumerate(node.keywords):
        if keyword.arg:
            yield "argument dropped", _with(node, keywords=_without(node.keywords, at))
    if len(node.args) > 1 and not isinstance(node.args[-1], ast.Starred):
        yield "argument dropped", _with(node, args=node.args[:-1])
    bare = len(node.args) == 1 and not node.keywords and not isinstance(node.args[0], ast.Starred | ast.GeneratorExp)
    if bare and ast.unparse(node.func) not in COUNTING:
        yield "call replaced by its argument", node.args[0]
    if isinstance(node.func, ast.Attribute) and not isinstance(node.func.value, ast.Name | ast.Constant):
        yield "method not called", node.func.value
    if isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
        yield "function swapped", _with(node, func=ast.Name(FUNCTIONS[node.func.id]))
    if isinstance(node.func, ast.Attribute) and node.func.attr in FUNCTIONS:
        yield "function swapped", _with(node, func=_with(node.func, attr=FUNCTIONS[node.func.attr]))


def _subscript(node: ast.AST) -> Iterator[Named]:
    if not isinstance(node, ast.Subscript):
        return
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    for at, part in enumerate(parts):
        for bound in ("lower", "upper", "step"):
            if isinstance(part, ast.Slice) and getattr(part, bound) is not None:
                changed = [*parts[:at], _with(part, **{bound: None}), *parts[at + 1 :]]
                yield (
                    "slice bound dropped",
                    _with(node, slice=_with(node.slice, elts=changed) if len(parts) > 1 else changed[0]),
                )


def _elements(node: ast.AST) -> Iterator[Named]:
    if isinstance(node, ast.Dict):
        for at in range(len(node.keys)):
            yield "entry dropped", _with(node, keys=_without(node.keys, at), values=_without(node.values, at))
    listed = node.type if isinstance(node, ast.ExceptHandler) else node
    fixed = isinstance(listed, ast.Tuple) and all(isinstance(element, ast.Constant) for element in listed.elts)
    caught = isinstance(listed, ast.Tuple) and listed is not node
    if (fixed or caught or isinstance(listed, ast.List | ast.Set)) and len(listed.elts) > 1 and _is_read(listed):
        for at in range(len(listed.elts)):
            yield "element dropped", _at(listed, _with(listed, elts=_without(listed.elts, at)))


def _is_read(node: ast.AST) -> bool:
    return isinstance(getattr(node, "ctx", ast.Load()), ast.Load)


def _condition(node: ast.AST) -> Iterator[Named]:
    """Of an `if`, a `while` or a comprehension, each as (operator, its condition's replacement)."""
    conditions = node.ifs if isinstance(node, ast.comprehension) else []
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        conditions = [node.test]
    for condition in conditions:
        if not isinstance(condition, ast.Constant):
            if not isinstance(node, ast.While):
                yield "condition true", _at(condition, ast.Constant(True))
            yield "condition false", _at(condition, ast.Constant(False))


def _at(node: ast.AST, other: ast.AST) -> ast.AST:
    """A replacement of another node than the one that was asked for."""
    other.replaces = node  # type: ignore[attr-defined]
    return other


def _statement(node: ast.AST) -> Iterator[Named]:
    nothing = ast.Constant(None)
    if isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield "return None", ast.Return(nothing)
    elif isinstance(node, ast.Lambda):
        yield "return None", _with(node, body=nothing)
    elif isinstance(node, ast.Yield) and node.value is not None:
        yield "yield None", ast.Yield(nothing)
    elif _does(node):
        yield "statement dropped", ast.Pass()
    elif isinstance(node, ast.Continue | ast.Break):
        yield "continue/break", ast.Break() if isinstance(node, ast.Continue) else ast.Continue()


def _does(node: ast.AST) -> bool:
    """A statement whose absence leaves no name undefined."""
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Attribute) for target in node.targets)
    calls = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    return calls or isinstance(node, ast.Raise | ast.AugAssign)


OPERATORS: tuple[Callable[[ast.AST], Iterator[Named]], ...] = (
    _compare, _arithmetic, _constant, _logic, _call, _subscript, _elements, _condition, _statement,
)  # fmt: skip


# ---- both ------------------------------------------------------------


def changes(source: str) -> Iterator[Change]:
    """All changes to a source that still compile."""
    return (change for change in found(source) if _compiles(change, source))


def found(source: str) -> Iterator[Change]:
    """All changes to a source, no two of them the same; of some the source may not compile."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    tree = ast.parse(source)
    needed = _needed(tree)
    seen: Counter[tuple[str, str, str, int]] = Counter()
    made: set[tuple[int, int, str]] = set()
    for place in places(tree):
        for operator, variant, node, other in _operated(place.node):
            kind = (place.function, operator, _text(node), variant)
            address = Address(*kind[:3], occurrence=seen[kind], variant=variant)
            seen[kind] += 1
            if operator == "argument dropped" and _lacks(other, needed):
                continue  # a TypeError that says nothing of the tests
            change = _change(address, place, node, other, starts)
            if change and (change.start, change.end, change.becomes) not in made:
                made.add((change.start, change.end, change.becomes))
                yield change


def _operated(node: ast.AST) -> Iterator[tuple[str, int, ast.AST, ast.AST]]:
    """What the operators make of a node: operator, variant, the node that is replaced, and by what."""
    variants: Counter[tuple[str, int]] = Counter()
    for operate in OPERATORS:
        for operator, other in operate(node):
            replaced = getattr(other, "replaces", node)
            yield operator, variants[operator, id(replaced)], replaced, other
            variants[operator, id(replaced)] += 1


def _needed(tree: ast.Module) -> dict[str, int]:
    """How many arguments functions must be given: those of the module, and some of Python's."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    own = {node.name: len(node.args.args) - len(node.args.defaults) for node in functions}
    return {"isinstance": 2, "map": 2, "min": 2, "max": 2, **own}


def _lacks(call: ast.AST, needed: dict[str, int]) -> bool:
    """A call lacks an argument that it must have."""
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
        return False
    return len(call.args) + len(call.keywords) < needed.get(call.func.id, 0)


def _text(node: ast.AST) -> str:
    """The text of a node in an address; an error is named by its type only, without its message."""
    if isinstance(node, ast.Raise):
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return f"raise {ast.unparse(raised)}" if raised else "raise"
    return ast.unparse(node)


def _change(address: Address, place: Place, node: ast.AST, other: ast.AST, starts: list[int]) -> Change | None:
    """The change of a node into another; None where it cannot be written, or is none."""
    segment = node
    if place.literal:
        segment, other = place.literal, copy.deepcopy(place.literal, {id(node): other})
    try:
        becomes = ast.unparse(ast.fix_missing_locations(other))
    except ValueError:  # quotes within quotes
        return None
    if becomes == ast.unparse(segment):
        return None
    start = starts[segment.lineno - 1] + segment.col_offset
    end = starts[segment.end_lineno - 1] + segment.end_col_offset
    return Change(address, start, end, becomes if isinstance(other, ast.stmt) else f"({becomes})")


def _compiles(change: Change, source: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # as of what is called and is no function
        try:
            compile(change.applied(source), "mutant", "exec")
        except SyntaxError:
            return False
    return True
