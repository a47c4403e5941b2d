"""A shape that the operator writes: a Jinja template, in a sandbox.

The template sees the envelope's own names (`id`, `type`, `time`, `source`, `subject`, `data`) and nothing else. The
same notification always gives the same bytes, so nothing of chance or time is there. A name that is not there is an
error, never an empty text; a template that gives nothing but blanks leaves the notification out.

The sandbox (`jinja2.sandbox`, Jinja 3.1 documentation, "Sandbox") keeps a template from Python. What it does not bound
is bounded here: texts put together, repeated or replaced, lists and tables within each other, numbers raised to a
power, `range`, loops within loops, macros (which may call themselves), blocks kept as a text, filters that pad, and the
output, which is counted while it is made.
"""

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson
from jinja2 import StrictUndefined, TemplateError, Undefined, nodes, pass_eval_context
from jinja2.environment import Template
from jinja2.exceptions import SecurityError
from jinja2.filters import do_tojson
from jinja2.sandbox import ImmutableSandboxedEnvironment

from schemas.alerts import Notification
from schemas.errors import ConfigError
from sinks.routing import UnreadableError
from sinks.shapes.reading import JSON, Shape

TEMPLATE_BYTES_MAX = 65_536
OUTPUT_BYTES_MAX = 262_144
"""Ten times what Standard Webhooks 1.0.0 advises for a body."""

RANGE_MAX = 100
DEPTH_MAX = 3
"""Loops within loops: with `RANGE_MAX` turns each, a million turns at most."""
TEXT_CHARS_MAX = 10_000
"""Of what `*`, `+`, `~`, `join` and `replace` make: doubling a text line by line comes to an end."""

FILTERS = frozenset({
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "forceescape",
    "groupby", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject",
    "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr", "sort", "string", "striptags",
    "sum", "title", "tojson", "trim", "truncate", "unique", "upper", "urlencode",
})  # fmt: skip
"""Those that give the same each time, and not much more than they are given."""

_PADDING = frozenset({
    "center", "encode", "expandtabs", "format", "format_map", "join", "ljust", "replace", "rjust", "translate", "zfill",
})  # fmt: skip
"""Methods of texts that make a little into as much as they are asked for."""

_REFUSED = (
    nodes.Macro, nodes.CallBlock, nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends, nodes.AssignBlock,
    nodes.FilterBlock,
)  # fmt: skip


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja without Python, without chance, and with bounds."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self) -> None:
        # JSON is most of what is written; `tojson` does its own escaping, which HTML's would spoil.
        super().__init__(undefined=StrictUndefined, autoescape=False)
        self.filters = {name: filter_ for name, filter_ in self.filters.items() if name in FILTERS}
        self.filters |= {"join": _joined, "replace": _replaced, "held": _held, "tojson": _json}
        self.globals = {"range": _range}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Keep what pads from a template, besides all that leads to Python."""
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, str) and attr in _PADDING)

    def wrap_str_format(self, value: Any) -> None:
        """Give no stand-in for `str.format`: what it is, `is_safe_attribute` refuses."""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Multiply what is not too much; raise nothing to a power, and format nothing, which pads."""
        if operator == "**" or (isinstance(left, str) and operator == "%"):
            raise SecurityError(f"a template must not use {operator} here")
        for one, other in ((left, right), (right, left)):
            if isinstance(one, str | list | tuple) and isinstance(other, int) and len(one) * other > TEXT_CHARS_MAX:
                raise _too_long("*")
        if operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            _require_short("+", len(left) + len(right))
        return super().call_binop(context, operator, left, right)


def _too_long(what: str) -> SecurityError:
    return SecurityError(f"a template must not make more than {TEXT_CHARS_MAX} characters or items by {what}")


def _require_short(what: str, length: int) -> None:
    if length > TEXT_CHARS_MAX:
        raise _too_long(what)


def _joined(values: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    """Stand in for Jinja's `join`; `attribute` is the name of one field, without dots."""
    texts = [str(value if attribute is None else value[attribute]) for value in values]
    _require_short("join", sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


def _replaced(value: Any, old: str, new: str, count: int = -1) -> str:
    """Stand in for Jinja's `replace`."""
    text = str(value)
    _require_short("replace", len(text) + text.count(old) * len(new))
    return text.replace(old, new, count)


@pass_eval_context
def _json(context: nodes.EvalContext, value: Any, indent: int | None = None) -> str:
    """Stand in for Jinja's `tojson`, which does not say what is not there."""
    if isinstance(value, Undefined):
        str(value)  # raises, and names it
    return do_tojson(context, value, indent)


def _held(value: Any) -> Any:
    """Return a list or table that a template makes, if all of it together is not too large."""
    if _size(value) > OUTPUT_BYTES_MAX:
        raise SecurityError(f"a template must not make lists or tables of more than {OUTPUT_BYTES_MAX} bytes")
    return value


def _size(value: Any) -> int:
    """Return about how many bytes a value is when written; what stands in it twice counts twice."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_size(key) + _size(inner) for key, inner in value.items()) + 2
    return sum(map(_size, value)) + 2 if isinstance(value, list | tuple) else 8


def _guarded(tree: nodes.Template) -> nodes.Template:
    """Put a bound around what no operator or filter goes through: `~`, lists and tables written out."""
    for parent in [tree, *tree.find_all(nodes.Node)]:
        for name, value in parent.iter_fields():
            if isinstance(value, list):
                value[:] = map(_guard, value)
            else:
                setattr(parent, name, _guard(value))
    return tree


def _guard(node: Any) -> Any:
    if isinstance(node, nodes.Concat):
        return _filtered(nodes.List(node.nodes, lineno=node.lineno, environment=node.environment), "join")
    written = isinstance(node, nodes.List | nodes.Dict) or (isinstance(node, nodes.Tuple) and node.ctx == "load")
    return _filtered(node, "held") if written else node


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno, environment=node.environment)


def _range(*arguments: int) -> range:
    made = range(*arguments)
    if len(made) > RANGE_MAX:
        raise SecurityError(f"range must give at most {RANGE_MAX} numbers, would have given {len(made)}")
    return made


def template(text: str, content_type: str, samples: Mapping[str, Notification]) -> Shape:
    """Return the shape of a template, tried on samples.

    Where `content_type` is JSON, what the template gives must be JSON.

    Args:
        text: the template.
        content_type: of what it gives.
        samples: notifications by name.

    Raises:
        ConfigError: the template cannot be read, asks for what the sandbox refuses, or fails on a sample; with every
            sample that it fails on.
    """
    shape = Shape("template", content_type, _renderer(_compiled(text), is_json=_is_json(content_type)))
    problems = []
    for name, sample in samples.items():
        try:
            shape.render(sample)
        except UnreadableError as error:
            problems.append(f"must be a template that renders the sample {name}, did not: {error}")
    if problems:
        raise ConfigError(problems)
    return shape


def _compiled(text: str) -> Template:
    if len(text.encode()) > TEMPLATE_BYTES_MAX:
        raise ConfigError([f"must be a template of at most {TEMPLATE_BYTES_MAX} bytes, had {len(text.encode())}"])
    sandbox = _Sandbox()
    try:
        tree = sandbox.parse(text)
        _check(tree)
        return sandbox.from_string(_guarded(tree))
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        where = "" if line is None else f" (line {line})"
        raise ConfigError([f"must be a Jinja template, was not: {error}{where}"]) from error
    except RecursionError as error:
        raise ConfigError(["must be a Jinja template that is not nested so deeply"]) from error


def _check(tree: nodes.Template) -> None:
    """Hold a template against what the sandbox cannot bound while it runs."""
    for kind in _REFUSED:
        for node in tree.find_all(kind):
            raise SecurityError(f"line {node.lineno}: a template must not use {kind.__name__.lower()}")
    if _depth(tree) > DEPTH_MAX:
        raise SecurityError(f"loops must stand at most {DEPTH_MAX} within each other, stood {_depth(tree)}")
    for loop in tree.find_all(nodes.For):
        if loop.recursive:
            raise SecurityError(f"line {loop.lineno}: a loop must not be recursive")


def _depth(node: nodes.Node) -> int:
    below = max((_depth(child) for child in node.iter_child_nodes()), default=0)
    return below + isinstance(node, nodes.For)


def _renderer(compiled: Template, *, is_json: bool) -> Callable[[Notification], bytes | None]:
    def render(notification: Notification) -> bytes | None:
        try:
            envelope = orjson.loads(notification.body)
        except orjson.JSONDecodeError as error:
            raise UnreadableError(f"body must be JSON, was not: {error}") from error
        try:
            output = _bounded(compiled.generate(envelope)).strip()
        except UnreadableError:
            raise
        except Exception as error:
            # Whatever a template does wrong is its own fault, and that of one delivery: Jinja lets Python's errors out.
            raise UnreadableError(f"the template failed{_place(error)}: {type(error).__name__}: {error}") from error
        if output and is_json:
            _require_json(output)
        return output or None

    return render


def _place(error: Exception) -> str:
    """Say in which line of the template an error arose, where Jinja shows it."""
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == "<template>"), None)
    return "" if line is None else f" in line {line}"


def _bounded(pieces: Iterator[str]) -> bytes:
    """Join what a template gives, and stop it when it gives too much."""
    output = bytearray()
    for piece in pieces:
        output += piece.encode()
        if len(output) > OUTPUT_BYTES_MAX:
            raise UnreadableError(f"a template must give at most {OUTPUT_BYTES_MAX} bytes, gave more")
    return bytes(output)


def _require_json(output: bytes) -> None:
    try:
        orjson.loads(output)
    except orjson.JSONDecodeError as error:
        raise UnreadableError(f"the template must give JSON, did not: {error}") from error


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == JSON or kind.endswith("+json")
