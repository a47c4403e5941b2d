"""Keys from the environment: `STAYLINE_STATE__DIRECTORY=/var/lib/stayline` stands for `directory` of `[state]`.

Two underscores go one table down; an output is named by its place from 0 (`STAYLINE_OUTPUT__0__URL`), and one place
past the last adds an output. How a value is read follows from the key: text as it stands, numbers and truth values
as in TOML, a list as `a,b` or as in TOML (`["a", "b"]`), a table as in TOML (`{ a = 1 }`). A variable that names no
key is an error, unless the configuration names it as the place of a secret.
"""

import dataclasses
import re
import tomllib
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

PREFIX = "STAYLINE_"
_DEEPER = "__"


class Overridden(NamedTuple):
    """A raw configuration with the environment applied.

    Attributes:
        raw: tables as `tomllib` gives them.
        problems: variables that could not be applied.
        variables: key, with dots -> the variable it came from.
    """

    raw: dict[str, Any]
    problems: list[str]
    variables: dict[str, str]


def override(raw: dict[str, Any], environ: Mapping[str, str], schema: type[BaseModel]) -> Overridden:
    """Apply every override in the environment. Changes `raw`.

    Args:
        raw: tables as `tomllib` gives them.
        environ: the environment.
        schema: the model that the result will be held against.
    """
    result = Overridden(raw, [], {})
    secret = {*_secret_variables(raw), *(text for name, text in environ.items() if name.endswith("SECRET_ENV"))}
    for name in sorted((name for name in environ if name.startswith(PREFIX) and name not in secret), key=_order):
        problem = _apply(result, name, environ[name], schema)
        if problem is not None:
            result.problems.append(f"{name}: {problem}")
    return result


def _apply(result: Overridden, name: str, text: str, schema: type[BaseModel]) -> str | None:
    tail = name.removeprefix(PREFIX).lower()
    path = tail.split(_DEEPER)
    if len(path) == 1:
        meant = next(_readings(schema, tail.split("_")), None)
        if meant is None:
            return None
        return f"must be written {PREFIX}{_DEEPER.join(meant).upper()} to stand for {'.'.join(meant)}"
    found = kinds(schema, path)
    if not found:
        hint = "; a secret stands in the variable that secret_env names" if "secret" in path[-1] else ""
        return f"must stand for a key of the configuration, and {'.'.join(path)} is none{hint}"
    problem = _put(result.raw, path, _value(text, found))
    if problem is None:
        result.variables[".".join(path)] = name
    return problem


def _put(raw: dict[str, Any], path: list[str], value: Any) -> str | None:
    """Set one key, making the tables on the way; return why not."""
    node: Any = raw
    for part, following in zip(path, [*path[1:], ""], strict=True):
        key: Any = part
        if isinstance(node, list):
            key = int(part)
            if key > len(node):
                return f"must count from 0 without a gap, and there are {len(node)} before it"
            node += [{}] if key == len(node) else []
        elif not isinstance(node, dict):
            return f"must lead through tables, and {part} stands below a value"
        if not following:
            node[key] = value
        elif isinstance(node, dict):
            node = node.setdefault(key, [] if following.isdecimal() else {})
        else:
            node = node[key]
    return None


def _value(text: str, found: list[Any]) -> Any:
    origins = {get_origin(kind) or kind for kind in found}
    if text.lstrip()[:1] in ("[", "{") and not origins <= {str}:
        return _toml(text)
    if origins <= {int, float, bool, type(None)}:
        return _toml(text)
    if tuple in origins and str not in origins and Literal not in origins:
        return [part.strip() for part in text.split(",")]
    return text


def _toml(text: str) -> Any:
    """Read a value as TOML; what is none stays text, and the schema says what it should have been."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def kinds(schema: Any, path: list[str]) -> list[Any]:
    """Return the types that a key may have, or none where there is no such key.

    Args:
        schema: a type, as in an annotation.
        path: the names on the way down; a place in a list is a number.
    """
    found = list(_alternatives(schema))
    for part in path:
        found = [kind for one in found for below in _below(one, part) for kind in _alternatives(below)]
    return found


def names(schema: Any, path: list[str]) -> list[str]:
    """Return the keys that a table may have."""
    return [name for kind in kinds(schema, path) for name in _fields(kind)]


def _fields(kind: Any) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: info.annotation for name, info in kind.model_fields.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return {info.name: hints[info.name] for info in dataclasses.fields(kind)}
    return {}


def _below(kind: Any, part: str) -> list[Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is dict:
        return [arguments[1]]
    if origin in (tuple, list):
        return [arguments[0]] if part.isdecimal() and len(part) <= 4 else []
    fields = _fields(kind)
    return [fields[part]] if part in fields else []


def _alternatives(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for one in get_args(annotation):
            yield from _alternatives(one)
    else:
        yield annotation


def _readings(schema: Any, words: list[str], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Find the keys that a name with single underscores could have meant: `state_directory` is state.directory."""
    if not words and len(path) > 1:
        yield path
    for size in range(1, len(words) + 1):
        part = "_".join(words[:size])
        for below in (kind for one in _alternatives(schema) for kind in _below(one, part) if _fields(one)):
            yield from _readings(below, words[size:], (*path, part))


def _secret_variables(node: Any) -> Iterator[str]:
    """Find every variable that a raw configuration names as the place of a secret."""
    if isinstance(node, list):
        for one in node:
            yield from _secret_variables(one)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "secret_env" and isinstance(value, str):
                yield value
            yield from _secret_variables(value)


def _order(name: str) -> list[tuple[int, str]]:
    # Outputs are added in the order of their numbers, 9 before 10.
    return [(int(part) if re.fullmatch("[0-9]{1,4}", part) else 0, part) for part in name.split(_DEEPER)]
