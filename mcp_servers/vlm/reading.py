"""Reading a model's reply: one JSON object of the form that was asked for, or a problem in words that it can act on.

Nothing is guessed: a reply with two objects, a number out of range or a field of another type is a problem, never a
value.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

T = TypeVar("T", bound=BaseModel)

_UNTOLD = frozenset(
    {"title", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "default", "pattern"}
)
"""Keywords that not every service takes in a schema; descriptions say them in words, and ``read_as`` checks them."""


class ReplyError(ValueError):
    """A reply that cannot be used; the message completes the sentence "Your reply could not be used: ..."."""


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a flat model as services take it: every field required, no others allowed."""
    schema: dict[str, Any] = _without_untold(model.model_json_schema())
    schema["required"] = list(schema["properties"])
    schema["additionalProperties"] = False
    return schema


def _without_untold(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_untold(value) for key, value in node.items() if key not in _UNTOLD}
    return [_without_untold(item) for item in node] if isinstance(node, list) else node


def read_as(model: type[T], text: str) -> T:
    """The reply as a validated object. Raises ReplyError."""
    try:
        return model.model_validate(json_object(text), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:80] or "the object"
        raise ReplyError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error


def json_object(text: str) -> dict[str, Any]:
    """The one JSON object in a reply; words or a code fence around it, and thoughts before it, are left out.

    Raises ReplyError where there is none, where it is cut off or where there are several.
    """
    text = re.sub(r"\A.*</think(?:ing)?>", "", text, flags=re.DOTALL)
    start = text.find("{")
    if start < 0:
        raise ReplyError("it holds no JSON object")
    try:
        found, end = json.JSONDecoder(parse_constant=_refuse).raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise ReplyError("its JSON is damaged or cut off") from error
    if "{" in text[end:]:
        raise ReplyError("it holds more than one JSON object")
    if not isinstance(found, dict):
        raise ReplyError("it is not a JSON object")
    return found


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")
