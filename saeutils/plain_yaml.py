"""YAML of plain values: each key once only, and no tags that make objects."""

from __future__ import annotations

from typing import Any

import yaml


class _Once(yaml.SafeLoader):
    """Plain YAML in which a key may stand once only: the second of two would win unseen."""

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
    """Plain values from YAML; keys once only, no tags that make objects.

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
