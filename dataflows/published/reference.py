"""The configuration reference: every table and key that the configuration has, read from the model itself."""

import dataclasses
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dataflows.config import desk, kinds
from dataflows.config.settings import Config
from dataflows.published.meanings import MEANINGS
from schemas import formats
from sinks.shapes import NAMES as SHAPES

HEAD = """# Configuration reference

Made from the code by `python -m dataflows.published`; a test holds it against the model that reads the configuration.

One TOML file, given by `-c`. Any key can be overridden from the environment: `STAYLINE_STATE__DIRECTORY` stands for
`directory` of `[state]`, `STAYLINE_OUTPUT__0__URL` for `url` of the first `[[output]]`. Unknown keys are errors, and
all problems are listed at once. Secrets never stand in the file: `secret_env` names the variable that holds one,
`secret_file` the file. Relative paths are relative to the working directory. `stayline check -c FILE` shows every key
with what it resolves to, and no secret.
"""

KINDS = {
    kinds.Listen: "`host:port`, `[address]:port` for IPv6",
    kinds.File: "path",
    kinds.Name: "1 to 64 letters, digits, `.`, `-`, `_`",
    kinds.Variable: "name of an environment variable",
    kinds.Topic: "name of a topic",
    kinds.Partitions: '`"all"`, a list, a range or a share',
    kinds.Brokers: "`host:port`, several separated by commas",
    kinds.Hours: "`21:00-08:00`",
    kinds.Zone: "time zone",
    kinds.Networks: "list of address ranges",
    kinds.Label: "1 to 128 characters",
    desk.WebAddress: "`https://` address (`http://` to loopback)",
    desk.Origin: "`https://` address without a path (`http://` to loopback)",
    desk.PostgresUrl: "connection string of libpq, without a password",
    kinds.ContentType: "media type",
    kinds.User: "name of a user",
    kinds.Digits: "up to 8 digits",
    kinds.FormatName: ", ".join(f"`{name}`" for name in ("stayline", *formats.NAMES)),
    kinds.ShapeName: ", ".join(f"`{name}`" for name in SHAPES),
    str: "text",
    bool: "`true` or `false`",
    int: "whole number",
    float: "number",
}
"""What each kind of value is called."""


class Key(NamedTuple):
    """One key: its table, its name, what it may be, what it is if it is not given, what it means."""

    table: str
    name: str
    kind: str
    default: str
    meaning: str


def reference() -> str:
    """Return the page."""
    lines = [HEAD]
    for table, keys in tables().items():
        lines += [f"## {table}", "", "| key | value | default | meaning |", "|---|---|---|---|"]
        lines += [f"| `{key.name}` | {key.kind} | {key.default} | {key.meaning} |" for key in keys]
        lines.append("")
    return "\n".join(lines)


def tables() -> dict[str, list[Key]]:
    """Return the keys of every table, in the order of the model; tables without keys of their own left out."""
    found: dict[str, list[Key]] = {}
    for key in _keys(Config, "", ""):
        mine = found.setdefault(key.table, [])
        if key not in mine:
            mine.append(key)
    return found


def _keys(model: Any, path: str, table: str) -> Iterator[Key]:
    hints = get_type_hints(model, include_extras=True)
    below = []
    for name, default in _fields(model).items():
        deeper = list(_models(hints[name]))
        place = f"{path}.{name}" if path else name
        if deeper:
            below += [(one, place, _heading(one, place, many=name == "output")) for one in deeper]
        elif name != "kind" or table == "[input]":  # that of an output stands in its heading
            kind, required = _kind(hints[name]), default is PydanticUndefined
            meaning = MEANINGS.get(place, "")
            yield Key(table, name, kind, "required" if required else _shown(default), meaning)
    for one, place, heading in below:
        yield from _keys(one, place, heading)


def _heading(model: Any, place: str, *, many: bool) -> str:
    if not many:
        return f"[{place}]"
    kind = get_args(model.model_fields["kind"].annotation)[0]
    return f'[[output]] of kind = "{kind}"'


def _fields(model: Any) -> dict[str, Any]:
    """Return the default of each field; `PydanticUndefined` where it must be given."""
    if issubclass(model, BaseModel):
        return {name: _default(info) for name, info in model.model_fields.items()}
    defaults = {}
    for info in dataclasses.fields(model):
        made = None if info.default_factory is dataclasses.MISSING else info.default_factory()
        missing = info.default is dataclasses.MISSING and made is None
        defaults[info.name] = PydanticUndefined if missing else made if made is not None else info.default
    return defaults


def _default(info: FieldInfo) -> Any:
    # What is computed from other keys has its default in words.
    return None if info.default_factory is not None else info.default


def _shown(default: Any) -> str:
    if default is None or default in ((), {}):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int):
        return f"{default:,}"
    return f'`"{default}"`' if isinstance(default, str) else f"`{list(default) if type(default) is tuple else default}`"


def _models(annotation: Any) -> Iterator[Any]:
    """Find the tables that a key may hold."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _models(get_args(annotation)[0])
    elif origin in (Union, types.UnionType, tuple):
        for one in get_args(annotation):
            yield from _models(one)
    elif isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)):
        yield annotation


def _kind(annotation: Any) -> str:
    """Say what a value may be."""
    if annotation in KINDS:
        return KINDS[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bounded(_kind(arguments[0]), arguments[1:])
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_kind(one) for one in arguments if one is not type(None)))
    if origin in (tuple, list):
        return f"list of: {_kind(arguments[0])}"
    return "table"


def _bounded(kind: str, rules: tuple[Any, ...]) -> str:
    known = [one for rule in rules for one in (rule.metadata if isinstance(rule, FieldInfo) else [rule])]
    low = next((one.ge for one in known if isinstance(one, Ge)), None)
    high = next((one.le for one in known if isinstance(one, Le)), None)
    if low is not None and high is not None:
        return f"{low:,} to {high:,}"
    return f"{kind}, not empty" if any(isinstance(one, MinLen) for one in known) else kind
