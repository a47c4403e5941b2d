"""Writes tables as TOML 1.0: what `tomllib` reads back to the same."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any


def dumps(table: Mapping[str, Any]) -> str:
    """Write a table of texts, numbers, truth values, lists and tables; lists of tables become `[[name]]`."""
    return "\n".join(_lines(table, [])).strip() + "\n"


def _lines(table: Mapping[str, Any], path: list[str]) -> Iterator[str]:
    below = {key: value for key, value in table.items() if isinstance(value, Mapping) or _is_tables(value)}
    for key, value in table.items():
        if key not in below:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in below.items():
        name = ".".join(map(_key, [*path, key]))
        for one in value if isinstance(value, list) else [value]:
            yield ""
            yield f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
            yield from _lines(one, [*path, key])


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value)


def _text(text: str) -> str:
    # JSON's escapes are TOML's; JSON leaves DEL as it is, which TOML does not.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
