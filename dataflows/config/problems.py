"""What is wrong with a configuration, in sentences: the key, what must hold, what was found; never a secret."""

import difflib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dataflows.config.outputs import FileOutput
from dataflows.config.overrides import kinds, names
from dataflows.config.settings import Config
from dataflows.redaction import SECRET_NAME, redacted

_FOUND_CHARS_MAX = 80
_INLINE = "must not stand here: a secret is given by secret_env or secret_file, never inline"
_ABSENT = ", was absent"
_HOLDS = {"quiet", "contact_cap"}

_RULES: dict[str, str] = {
    "missing": "must be given",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a whole number of at most 64 bits",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "dict_type": "must be a table",
    "dataclass_type": "must be a table",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "union_tag_invalid": "must be one of {expected_tags}",
    "union_tag_not_found": "must be given",
    "too_short": "must hold at least {min_length}",
    "value_error": "{error}",
}


def shape_problems(
    error: ValidationError, raw: Mapping[str, Any], schema: type[BaseModel], variables: Mapping[str, str]
) -> list[str]:
    """Turn everything that a model found wrong into sentences, one a key.

    Args:
        error: what the model raised.
        raw: the tables it was given.
        schema: the model.
        variables: key, with dots -> the environment variable it came from.
    """
    rules: dict[str, list[str]] = {}
    found: dict[str, str] = {}
    for details in error.errors(include_url=False):
        path = _path(details, raw, schema)
        key = ".".join(path)
        rules.setdefault(key, [])
        rule = _rule(details, path, schema)
        if rule not in rules[key]:
            rules[key].append(rule)
        found[key] = _found(details, path)
    # A secret written inline is the one thing to put right: that its name is missing too follows from it.
    inline = {key.rpartition(".")[0] for key, said in rules.items() if said == [_INLINE]}
    needless = {f"{table}.secret_env" for table in inline if found.get(f"{table}.secret_env") == _ABSENT}
    return [
        f"{key}{f' ({variables[key]})' if key in variables else ''}: {_joined(rules[key])}{found[key]}"
        for key in rules
        if key not in needless
    ]


def _joined(rules: list[str]) -> str:
    """Join what the members of a union ask for: must be text or a list."""
    return " or ".join([rules[0], *(rule.removeprefix("must be ") for rule in rules[1:])])


def _path(details: ErrorDetails, raw: Mapping[str, Any], schema: type[BaseModel]) -> list[str]:
    """Leave out of a place what is no key: the names of a union's members."""
    path: list[str] = []
    for part in map(str, details["loc"]):
        if kinds(schema, [*path, part]) or part in _at(raw, path):
            path.append(part)
    return [*path, "kind"] if details["type"].startswith("union_tag") else path


def _at(raw: Any, path: list[str]) -> Any:
    node: Any = raw
    for part in path:
        node = node[int(part)] if isinstance(node, list) else node.get(part, {}) if isinstance(node, dict) else {}
    return node if isinstance(node, dict) else {}


def _rule(details: ErrorDetails, path: list[str], schema: type[BaseModel]) -> str:
    if details["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        if SECRET_NAME.search(path[-1]):
            return _INLINE
        if path[-1] in _HOLDS and path[0] == "output":
            return "must stand at a webhook, which alone holds anything back"
        near = difflib.get_close_matches(path[-1], names(schema, path[:-1]), 1)
        return "must be a key of the configuration, and is none" + (f"; is {near[0]} meant?" if near else "")
    template = _RULES.get(details["type"])
    if template is None:
        return f"must hold: {details['msg'].lower()}"
    return template.format_map(details.get("ctx", {}))


def _found(details: ErrorDetails, path: list[str]) -> str:
    if details["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return ""
    value: Any = details["input"]
    if details["type"] in ("missing", "union_tag_not_found") or value is None:
        return _ABSENT
    if details["type"] == "union_tag_invalid":
        value = value.get("kind")
    return f", was {shown(path, value)}"


def shown(path: list[str], value: Any) -> str:
    """Show a value found, unless it may be a secret."""
    if isinstance(value, dict):
        return "a table"
    text = json.dumps(value, ensure_ascii=False, default=str)
    if any(SECRET_NAME.search(part) for part in path[-1:]) or "@" in text or redacted(text) != text:
        return "something else (not shown: it may be a secret)"
    return text if len(text) <= _FOUND_CHARS_MAX else f"{text[:_FOUND_CHARS_MAX]}..."


def shared_files(raw: Mapping[str, Any]) -> list[str]:
    """Two outputs must not write one file, and none may write what the input reads; what has no shape is left out."""
    tables = raw.get("output")
    given = [one if isinstance(one, dict) else {} for one in tables] if isinstance(tables, list) else []
    paths = [
        (f"output.{place}", Path(one["path"]).absolute())
        for place, one in enumerate(given)
        if one.get("kind") == "file" and isinstance(one.get("path"), str)
    ]
    source = _at(raw, ["input"])
    names = _at(source, ["file"]).get("paths") if source.get("kind", "file") == "file" else None
    read = {Path(name).absolute() for name in names if isinstance(name, str)} if isinstance(names, list) else set()
    found = [f"{key}.path: must not be a file that the input reads, was {path}" for key, path in paths if path in read]
    first: dict[Path, str] = {}
    for key, path in paths:
        if first.setdefault(path, key) != key:
            found.append(f"{key}.path: must be a file of its own, was that of {first[path]}")
    return found


def file_problems(config: Config) -> list[str]:
    """Hold the files that a configuration names against each other and against the disk; return every problem."""
    taken = list(config.input.file.paths) if config.input.kind == "file" else []
    rule = "must be a file, or one folder alone, was not"
    alone = len(taken) == 1
    problems = [
        f"input.file.paths: {path} {rule}" for path in taken if not path.is_file() and not (alone and path.is_dir())
    ]
    folders = {path.resolve() for path in taken if path.is_dir()}
    for key, one in config.placed():
        if not isinstance(one, FileOutput):
            continue
        if one.path.is_dir() or not one.path.parent.is_dir():
            problems.append(f"{key}.path: {one.path} must be a file in a folder that exists, was not")
        if one.path.resolve() in {other.resolve() for other in taken} or one.path.parent.resolve() in folders:
            problems.append(f"{key}.path: {one.path} must be another file than those read and written, was one")
        taken.append(one.path)
    return problems


def duplicate_names(raw: Mapping[str, Any]) -> list[str]:
    """Two outputs must not have one name; an output without a name has that of its kind."""
    outputs = raw.get("output")
    tables = [one for one in outputs if isinstance(one, dict)] if isinstance(outputs, list) else []
    count = Counter(str(table.get("name", table.get("kind"))) for table in tables)
    return [
        f"output: must have different names (the kind's if none is given), was {json.dumps(name)} {times} times"
        for name, times in count.items()
        if times > 1
    ]
