"""The backends of image_gen by name: what a client is told of each, and the editor behind it."""

from __future__ import annotations

from collections.abc import Callable

from mcp_servers.backends import BackendChoice, BackendFacts
from mcp_servers.fingerprint import local_version
from mcp_servers.image_gen.comfyui import ComfyEditor, workflow_of
from mcp_servers.image_gen.costs import most_of, price_problem
from mcp_servers.image_gen.editor import Editor
from mcp_servers.image_gen.gemini import GeminiEditor
from mcp_servers.image_gen.local import MODEL
from mcp_servers.image_gen.openai import OpenAIEditor, is_vendor
from mcp_servers.image_gen.workflow import WorkflowError
from mcp_servers.image_gen.xai import XaiEditor
from mcp_servers.remote import problem_of

ADAPTER = "editors-1"
"""Version of the way to an editor and back; a new one means that recorded edits could come out differently."""
EDITORS: dict[str, Callable[[BackendChoice], Editor]] = {
    "gemini": GeminiEditor,
    "openai": OpenAIEditor,
    "xai": XaiEditor,
}
NAMES = ("local", "gemini", "openai", "xai", "comfyui")


def facts_and_editor(choice: BackendChoice) -> tuple[BackendFacts, Editor | None]:
    """What is told of the chosen backend, and its editor; None for ``local`` and where there is a problem."""
    if choice.name == "local":
        return BackendFacts(model=MODEL, version=local_version("image_gen")), None
    if choice.name == "comfyui":
        return _comfyui(choice)
    editor = EDITORS[choice.name](choice)
    problem = problem_of(choice.name, "editor", choice) or price_problem(editor.model)
    if choice.name == "openai" and not is_vendor(choice.base_url) and not choice.model and not problem:
        problem = f"{editor.service}: name the model that it serves with --editor-model"
    facts = BackendFacts(
        name=choice.name,
        model=editor.model,
        version=f"{ADAPTER}/{editor.model}",
        max_cost_usd=most_of(editor.model, choice.base_url if choice.name == "openai" else ""),
        problem=problem,
    )
    return facts, None if problem else editor


def _comfyui(choice: BackendChoice) -> tuple[BackendFacts, Editor | None]:
    try:
        editor = ComfyEditor(choice, workflow_of(choice))
    except WorkflowError as error:
        return BackendFacts("comfyui", choice.model, ADAPTER, 0.0, str(error)), None
    version = f"{ADAPTER}/{editor.model}/{editor.workflow.digest}"
    return BackendFacts("comfyui", editor.model, version, 0.0), editor
