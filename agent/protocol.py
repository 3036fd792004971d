"""What a turn looks like: thinking, then one tool call or the answer (the paper's section 3).

Assistant turn: ``<thinking>…</thinking><tool_call>{"name": …, "arguments": {…}}</tool_call>``; the last one ends
in ``<answer>{…}</answer>`` instead. Observations are user messages ``[Tool Response from NAME]`` and a JSON
object. Every policy, the built-in planner included, writes this text and is read by ``parse_turn``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.task import Task

FIVE_TOOLS = ("prompt_gen", "image_gen", "quality_eval", "knowledge_retrieval", "mask_gen")
ANSWER = "answer"
"""The function by which a model with native function calling ends an episode."""

_TURN = re.compile(
    r"\s*<thinking>(?P<thinking>.*?)</thinking>\s*"
    r"(?:<tool_call>(?P<call>.*?)</tool_call>|<answer>(?P<answer>.*?)</answer>)\s*\Z",
    re.DOTALL,
)


class ProtocolError(ValueError):
    """Text that is not a valid turn; the message says what is wrong, in words a model can act on."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call as the policy wrote it; images are 1-based indices of the conversation."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of an episode. ``final_image_index`` is None where no image could be made."""

    status: str
    final_image_index: int | None
    mask_generated: bool
    synthesis_logic: str

    def to_json(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "final_image_index": self.final_image_index,
            "mask_generated": self.mask_generated,
            "synthesis_logic": self.synthesis_logic,
        }


@dataclass(frozen=True, slots=True)
class Turn:
    """One assistant turn: a thought and either a call or the answer."""

    thinking: str
    action: ToolCall | Answer


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image of the conversation: 1-based index, server handle, PNG bytes and size in pixels."""

    index: int
    handle: str
    png: bytes = field(repr=False)
    sha256: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Message:
    """One message as a policy sees it. ``name`` is the tool's name where the role is "tool"."""

    role: str
    content: str
    images: tuple[ImageRef, ...] = ()
    name: str = ""


def render_turn(turn: Turn) -> str:
    """The text of a turn; ``parse_turn`` is its inverse (thinking is stripped of outer white space)."""
    thinking, action = turn.thinking.strip(), turn.action
    if "</thinking>" in thinking:
        raise ValueError("a thought must not contain </thinking>")
    if isinstance(action, ToolCall):
        return render_parts(thinking, "tool_call", {"name": action.name, "arguments": action.arguments})
    return render_parts(thinking, "answer", action.to_json())


def render_parts(thinking: str, tag: str, fields: dict[str, Any]) -> str:
    """The text of a turn whose fields may yet be wrong; ``tag`` is "tool_call" or "answer"."""
    body = json.dumps(fields, ensure_ascii=False).replace("</", "<\\/")  # no closing tag inside, so it can be cut there
    return f"<thinking>{thinking}</thinking><{tag}>{body}</{tag}>"


def parse_turn(text: str) -> Turn:
    """Read an assistant turn.

    Raises ProtocolError where tags are missing, doubled or followed by other text, where the JSON is invalid
    or where a field is missing or of the wrong type.
    """
    match = _TURN.match(text)
    if match is None:
        raise ProtocolError(
            "write <thinking>...</thinking> and then exactly one <tool_call>{...}</tool_call> or <answer>{...}</answer>"
        )
    thinking = match["thinking"].strip()
    if match["call"] is not None:
        return Turn(thinking, _read_call(match["call"]))
    return Turn(thinking, _read_answer(match["answer"]))


def observation(name: str, payload: dict[str, Any]) -> str:
    """The text of a tool's answer."""
    return f"[Tool Response from {name}]\n{json.dumps(payload, ensure_ascii=False)}"


def read_observation(text: str) -> dict[str, Any]:
    """The payload of an observation. Raises ProtocolError where the text is not one."""
    head, _, body = text.partition("\n")
    if not head.startswith("[Tool Response from "):
        raise ProtocolError("not a tool response")
    return _object(body, "the tool response")


def _read_call(body: str) -> ToolCall:
    fields = _object(body, "<tool_call>")
    if set(fields) != {"name", "arguments"}:
        raise ProtocolError('<tool_call> must hold exactly the fields "name" and "arguments"')
    if not isinstance(fields["name"], str) or not isinstance(fields["arguments"], dict):
        raise ProtocolError('in <tool_call>, "name" must be a string and "arguments" an object')
    return ToolCall(fields["name"], fields["arguments"])


def _read_answer(body: str) -> Answer:
    fields = _object(body, "<answer>")
    kinds: dict[str, tuple[type, ...]] = {
        "status": (str,),
        "final_image_index": (int, type(None)),
        "mask_generated": (bool,),
        "synthesis_logic": (str,),
    }
    for name, allowed in kinds.items():
        value = fields.get(name)
        if name not in fields or not isinstance(value, allowed) or (name.endswith("index") and value is True):
            raise ProtocolError(f'<answer> needs {", ".join(kinds)}; "{name}" is missing or has a wrong type')
    return Answer(**{name: fields[name] for name in kinds})


def _object(body: str, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{where} does not hold valid JSON") from error
    if not isinstance(fields, dict):
        raise ProtocolError(f"{where} must hold one JSON object")
    return fields


_RULES = """\
You turn a photo of a good part into a realistic defective one. You work in steps: think, call one tool, look at \
what it returned, and decide again.

How to work:
1. Call prompt_gen once, at the start. It gives the first editing prompt.
2. Call image_gen with the prompt; target_image is always 1, since every edit starts from the original photo.
3. Call quality_eval on the new image. It returns scores and a review.
4. If the result did not pass, rewrite the prompt yourself, as the review says, and go back to step 2. After a low \
score you may call knowledge_retrieval to learn how this defect looks on this object; never call it before the \
first score.
5. When a result passes, or when few turns are left, call mask_gen on the best image, and only then answer.

Rules:
- Use the exact anomaly type of the task in every call, never a synonym.
- The values in a tool's JSON are the truth: go by them, do not restate them from memory.
- Images are named by their number in this conversation: 1 is the original photo, 2 the first synthesis, and so on.
- An editing prompt begins "Using the provided image, change only" and says that everything else stays as it is.
"""
_STATUS = """\
The status is "success" where the final image passed, "below_threshold" where it is the best but did not pass, and \
"failed" where there is no usable image; then final_image_index may be null.
"""

SYSTEM = f"""\
{_RULES}
Write every turn as
<thinking>your reasoning</thinking><tool_call>{{"name": "...", "arguments": {{...}}}}</tool_call>
and the last one as
<thinking>your reasoning</thinking><answer>{{"status": "success", "final_image_index": 2, "mask_generated": true, \
"synthesis_logic": "what was made and why it is good"}}</answer>
{_STATUS}
<tools>
"""


def system_prompt(signatures: Sequence[dict[str, Any]]) -> str:
    """The working rules and the tools' signatures inside ``<tools>…</tools>``, one JSON object a line."""
    lines = [json.dumps(signature, ensure_ascii=False) for signature in signatures]
    return SYSTEM + "\n".join(lines) + "\n</tools>"


def native_system_prompt() -> str:
    """The same working rules for a model that is given the tools as functions (``native_tools``)."""
    return (
        f"{_RULES}\nIn every turn say briefly what you think and call exactly one function. End with the function "
        f"{ANSWER}, which takes the place of an answer in words. {_STATUS}"
    )


def native_tools(signatures: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tools' signatures and one more function, ``answer``, whose arguments are an Answer's fields."""
    properties = {
        "status": {"type": "string", "enum": ["success", "below_threshold", "failed"]},
        "final_image_index": {"type": ["integer", "null"], "description": "number of the final image"},
        "mask_generated": {"type": "boolean", "description": "whether mask_gen found its mask"},
        "synthesis_logic": {"type": "string", "description": "what was made and why it is good"},
    }
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    function = {"name": ANSWER, "description": "Ends the work and gives its result.", "parameters": parameters}
    return [*signatures, {"type": "function", "function": function}]


def user_prompt(task: Task) -> str:
    """The task as the policy is told it; image 1 goes with it."""
    return (
        f"Image 1 shows a good {task.item_name}. Make it show one realistic defect of the type "
        f'"{task.anomaly_type}", with its mask.\n'
        f"item_name: {json.dumps(task.item_name, ensure_ascii=False)}\n"
        f"anomaly_type: {json.dumps(task.anomaly_type, ensure_ascii=False)}\n"
        f"A result passes from a score of {task.threshold:g}. At most {task.max_images} images may be made, in at "
        f"most {task.max_turns} turns. Use the anomaly type exactly as written here, and take scores and "
        "reviews from the tools' JSON."
    )


def protocol_hash(signatures: Sequence[dict[str, Any]]) -> str:
    """Fingerprint (SHA-256) of everything a policy is told beside the task."""
    return hashlib.sha256(system_prompt(signatures).encode()).hexdigest()
