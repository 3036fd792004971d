"""ComfyUI workflows as templates: reading them, and filling in the placeholders.

A template is a workflow as ComfyUI exports it for its API, in which texts hold placeholders such as ``{{prompt}}``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLACEHOLDERS = ("prompt", "image", "mask", "example", "seed", "width", "height")
NEEDED = ("prompt", "image")
MARK = re.compile(r"\{\{\s*(\w+)\s*\}\}")


class WorkflowError(ValueError):
    """A workflow file that cannot be used; the message names the cure."""


@dataclass(frozen=True, slots=True)
class Workflow:
    """A template: its name, its nodes as JSON, the placeholders in it, and a hash of its text."""

    name: str
    nodes: dict[str, Any]
    placeholders: frozenset[str]
    digest: str

    def filled(self, values: Mapping[str, str | int]) -> dict[str, Any]:
        """The workflow with its placeholders filled in; a text that is one placeholder alone becomes the value."""
        return {name: fill(node, values) for name, node in self.nodes.items()}


def read_workflow(path: Path) -> Workflow:
    """A template from a file. Raises WorkflowError."""
    try:
        text = path.read_text(encoding="utf-8")
        nodes = json.loads(text)
    except FileNotFoundError:
        raise WorkflowError(f"the workflow {path} does not exist: check the path") from None
    except (OSError, ValueError) as error:
        raise WorkflowError(f"the workflow {path} cannot be read: export it again, in API format") from error
    if not isinstance(nodes, dict) or not all(isinstance(n, dict) and "class_type" in n for n in nodes.values()):
        raise WorkflowError(f"the workflow {path} is not in ComfyUI's API format: export it with Export (API)")
    found = frozenset(MARK.findall(text))
    if unknown := sorted(found - set(PLACEHOLDERS)):
        known = ", ".join(f"{{{{{name}}}}}" for name in PLACEHOLDERS)
        raise WorkflowError(f"the workflow {path} has an unknown placeholder {{{{{unknown[0]}}}}}: use {known}")
    if missing := [name for name in NEEDED if name not in found]:
        raise WorkflowError(f"the workflow {path} lacks the placeholder {{{{{missing[0]}}}}}: put it where it belongs")
    return Workflow(path.stem, nodes, found, hashlib.sha256(text.encode()).hexdigest()[:12])


def fill(value: Any, values: Mapping[str, str | int]) -> Any:
    """A JSON value with the placeholders in its texts filled in."""
    if isinstance(value, dict):
        return {key: fill(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, values) for item in value]
    if not isinstance(value, str):
        return value
    whole = MARK.fullmatch(value.strip())
    if whole:
        return values[whole[1]]
    return MARK.sub(lambda mark: str(values[mark[1]]), value)
