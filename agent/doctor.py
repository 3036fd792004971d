"""``python -m agent.doctor``: checks a set-up before it is used, one line a check, each failure with its cure.

It takes agent.run's options, so that a command line is checked by writing ``doctor`` for ``run``; photo and output
options play no part. The tools are started with the chosen backends, and a model has to see two pictures and to carry
out one tool call with the real prompt_gen. Exit code 0 where nothing failed, 1 where a check failed, 2 for options
that cannot be used.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import anyio
from PIL import Image

from agent.demo import render_demo_photo
from agent.doctor_tools import try_tools
from agent.policies import Policy, PolicyError
from agent.policies.choose import Policies, PolicyOptionError, read_policy
from agent.protocol import (
    FIVE_TOOLS,
    Message,
    ProtocolError,
    ToolCall,
    observation,
    parse_turn,
    system_prompt,
    user_prompt,
)
from agent.run import FAILED, INPUT_UNUSABLE, InputError, parser_of, servers_of, timeout_of
from agent.settings import SettingsError, apply_settings
from agent.task import Task
from agent.toolbox import BACKEND_ROLES, Toolbox, ToolboxError

COLOURS = {"red": (220, 20, 20), "blue": (20, 40, 220)}
QUESTION = "Which colour fills this picture: red or blue? Answer with that one word."


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, "ok", "FAIL" or "skip", and what was found or how it is cured."""

    name: str
    status: str
    detail: str


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = parser_of()
    parser.prog = "python -m agent.doctor"
    parser.description = "Check tools, keys and model before a run. Takes the options of agent.run."
    parser.add_argument("--paid", action="store_true", help="also call the tools that cost money, once each")
    try:
        apply_settings(parser, "run", os.environ, Path.cwd())
        options = parser.parse_args(argv)
        policies = Policies(read_policy(options, os.environ))
    except (InputError, SettingsError, PolicyOptionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return INPUT_UNUSABLE
    checks: list[Check] = []

    def found(check: Check) -> None:
        checks.append(check)
        if not options.json:
            print(f"{check.status:<5} {check.name:<13} {check.detail}", flush=True)

    try:
        anyio.run(examine, options, policies, found)
    except KeyboardInterrupt:
        return 130
    healthy = all(check.status != "FAIL" for check in checks)
    if options.json:
        print(json.dumps({"ok": healthy, "checks": [asdict(check) for check in checks]}, indent=2, ensure_ascii=False))
    return 0 if healthy else FAILED


async def examine(options: argparse.Namespace, policies: Policies, found: Callable[[Check], None]) -> None:
    """All checks in order; a check whose ground is missing is skipped."""
    with tempfile.TemporaryDirectory(prefix="anomaly-agent-doctor-") as folder:
        async with policies:
            speaks = await check_server(policies, found)
            if speaks and policies.choice.name != "planner":
                speaks = await check_sight(policies, found)
            photo = Path(folder) / "flange.png"
            render_demo_photo(256).save(photo)
            if not await check_tools(options, policies if speaks else None, photo, found):
                found(Check("tool call", "skip", "the tools are not ready"))
            elif not speaks:
                found(Check("tool call", "skip", "the policy's server is not ready"))


async def check_server(policies: Policies, found: Callable[[Check], None]) -> bool:
    """Whether the policy's server answers, and whether it lists the model. A server may serve what it does not list."""
    choice = policies.choice
    if choice.name == "planner":
        found(Check("policy", "ok", "planner: no model, no key"))
        return True
    key = "with a key" if choice.api_key else "without a key"
    try:
        models = await policies.endpoint.models()
    except PolicyError as error:
        found(Check("policy", "FAIL", str(error)))
        return False
    lists = f"lists {choice.model}" if choice.model in (models or []) else f"does not list {choice.model} (tried below)"
    found(Check("policy", "ok", f"{choice.base_url} answers {key} and {lists}"))
    if note := choice.note():
        found(Check("price", "ok", note))
    return True


async def check_sight(policies: Policies, found: Callable[[Check], None]) -> bool:
    """Whether the model tells a red picture from a blue one. False only where it cannot be asked at all."""
    said = {}
    try:
        for colour in COLOURS:
            said[colour] = await _colour(policies, colour)
    except PolicyError as error:
        found(Check("sees images", "FAIL", str(error)))
        return False
    wrong = [f'"{words[:60]}" of the {colour} one' for colour, words in said.items() if _named(words) != {colour}]
    detail = f"it said {' and '.join(wrong)}: is {policies.choice.model} a vision model, and --max-tokens high enough?"
    right = "tells a red picture from a blue one"
    found(Check("sees images", "FAIL" if wrong else "ok", detail if wrong else right))
    return True


async def _colour(policies: Policies, colour: str) -> str:
    from agent.policies.dialects import take_reasoning

    stream = io.BytesIO()
    Image.new("RGB", (128, 128), COLOURS[colour]).save(stream, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    content = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": url}}]
    sampling = policies.choice.sampling.for_task(0).fields()
    completion = await policies.endpoint.complete({"messages": [{"role": "user", "content": content}]} | sampling)
    take_reasoning(completion)
    return " ".join(completion.text.split())


def _named(words: str) -> set[str]:
    return {colour for colour in COLOURS if colour in words.lower()}


async def check_tools(
    options: argparse.Namespace, policies: Policies | None, photo: Path, found: Callable[[Check], None]
) -> bool:
    """Whether all tools are there and their backends usable (packages, files, presence of keys); if so, calls.

    A backend that is not ready is reported in its server's words and replaced by ``local``, to hear of the next.
    """
    ready = True
    while True:
        try:
            async with Toolbox(servers_of(options, [photo.parent]), timeout_of(options)) as toolbox:
                if ready:
                    servers = ", ".join(f"{server['name']} {server['version']}".strip() for server in toolbox.described)
                    told = ", ".join(_backend(toolbox, name) for name in FIVE_TOOLS)
                    found(Check("tools", "ok", f"{servers}: {told}"))
                    for tool, (status, detail) in (await try_tools(toolbox, photo, options.paid)).items():
                        found(Check(tool, status, detail))
                    if policies:
                        found(await check_call(policies, toolbox, photo))
            return ready
        except ToolboxError as error:
            found(Check("tools", "FAIL", str(error)))
            ready = False
            tool = str(error).partition(":")[0]
            role = dict(zip(FIVE_TOOLS, BACKEND_ROLES, strict=True)).get(tool, "")
            if error.kind != "setup" or options.server or not role or getattr(options, role) == "local":
                return False
            setattr(options, role, "local")
            if role == "knowledge":
                options.knowledge_folder = None


def _backend(toolbox: Toolbox, tool: str) -> str:
    facts = toolbox.backend(tool)
    return " ".join(filter(None, (tool, facts.get("name"), facts.get("model"))))


async def check_call(policies: Policies, toolbox: Toolbox, photo: Path) -> Check:
    """Whether the policy calls prompt_gen on a photo, and goes on from what that returns."""
    task = Task(str(photo), "flange", "scratch")
    policy, signatures = policies.make(task), toolbox.signatures()
    try:
        original = await toolbox.open_photo(task.image)
        messages = [Message("system", system_prompt(signatures)), Message("user", user_prompt(task), (original,))]
        call = await _turn(policy, messages, signatures)
        if call.name != "prompt_gen":
            raise ProtocolError(f"it called {call.name} first, where prompt_gen is due")
        seen = await toolbox.call(call, task, [original])
        if seen.error:
            raise ProtocolError(f"prompt_gen refused its call: {seen.error}")
        messages.append(Message("tool", observation(call.name, seen.shown), (), call.name))
        then = await _turn(policy, messages, signatures)
    except (PolicyError, ToolboxError) as error:
        return Check("tool call", "FAIL", str(error))
    except ProtocolError as error:
        dialect = f", or try another --dialect than {policies.choice.dialect}" if policy.name != "planner" else ""
        return Check("tool call", "FAIL", f"{error}: use a model that follows the protocol{dialect}")
    return Check(
        "tool call", "ok", f"{policy.name} called prompt_gen, read what it returned, and would go on with {then.name}"
    )


async def _turn(policy: Policy, messages: list[Message], signatures: Sequence[dict[str, object]]) -> ToolCall:
    """The policy's next call, added to the conversation. Raises ProtocolError where the turn holds none."""
    reply = await policy.next_turn(messages, signatures)
    messages.append(Message("assistant", reply.text))
    said = " ".join(reply.text.split())[:80]
    if reply.problem:
        raise PolicyError(f"the model's turn cannot be used: {reply.problem}")
    try:
        action = parse_turn(reply.text).action
    except ProtocolError as error:
        raise ProtocolError(f'its turn "{said}" cannot be read ({error})') from error
    if not isinstance(action, ToolCall):
        raise ProtocolError("it answered without having worked")
    return action


if __name__ == "__main__":
    sys.exit(main())
