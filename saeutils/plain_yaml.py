"""YAML of plain values, read, merged and changed: each key once, no aliases, no objects."""

from __future__ import annotations

from typing import Any

import yaml


class _Once(yaml.SafeLoader):
    """Plain YAML in which a key may stand once only: the second of two would win unseen.

    Without aliases, of which a few lines can unfold to gigabytes.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.YAMLError(f"the alias *{event.anchor} in line {event.start_mark.line + 1}: "
                                 "write the value itself there")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: list[Any] = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.YAMLError(f"key {key!r} stands there twice, again in line "
                                     f"{key_node.start_mark.line + 1}: keep one")
            seen.append(key)
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """Plain values from YAML; keys once only, no aliases, no tags that make objects.

    Raises
    ------
    ValueError
        For anything that is not such YAML, in one line.
    """
    try:
        return yaml.load(text, _Once)  # a safe loader
    except RecursionError:
        raise ValueError("brackets within brackets, hundreds deep") from None
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        raise ValueError(" ".join(str(error).split())[:300]) from None


def holds_yes(value: Any) -> bool:
    """Whether a value is a truth value, which ``yes`` and ``no`` are, or one stands inside it.

    Examples
    --------
    >>> holds_yes(read_yaml("[75, yes]")), holds_yes(read_yaml("[75, 'yes']"))
    (True, False)
    """
    inner = value.values() if isinstance(value, dict) else value
    return isinstance(value, bool) or (
        isinstance(value, dict | list | tuple) and any(holds_yes(part) for part in inner))


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two trees of keys and values; where both have a value, that of `above` counts.

    Examples
    --------
    >>> merged({"sae": {"k": 1, "epochs": 2}}, {"sae": {"k": 3}})
    {'sae': {'k': 3, 'epochs': 2}}
    """
    both = dict(below)
    for key, value in above.items():
        inner = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = merged(both[key], value) if inner else value
    return both


def set_dotted(content: dict[str, Any], key: str, value: Any) -> None:
    """Set one key of a tree, such as ``sae.epochs``, in place.

    Raises
    ------
    ValueError
        The key leads through a value.
    """
    *parents, last = key.split(".")
    for part in parents:
        content = content.setdefault(part, {})
        if not isinstance(content, dict):
            raise ValueError(f"override {key!r}: {part!r} holds a value, not a section")
    content[last] = value
