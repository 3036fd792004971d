"""What a session came to: its attempts, the one that was kept, the verdict and the facts around it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from agent.report.pictures import SMALL, Album, Picture
from agent.report.prompts import Change, word_changes
from agent.session import Session
from agent.task import StopReason

STOPPED = {
    StopReason.ANSWERED: "the agent answered",
    StopReason.MAX_TURNS: "the turns ran out",
    StopReason.POLICY_ERROR: "the policy failed",
    StopReason.TOOL_ERROR: "a tool failed",
    StopReason.BUDGET: "the budget was spent",
    StopReason.CANCELLED: "cancelled",
}


@dataclass(slots=True)
class Attempt:
    """One synthesized image. ``index`` is its number in the conversation (the original is 1)."""

    number: int
    index: int
    prompt: str
    image: dict[str, Any]
    thumbnail: Picture
    payload: dict[str, Any]
    score: float | None = None
    location_score: float | None = None
    quality_score: float | None = None
    review: str = ""
    changes: list[tuple[Change, str]] = field(default_factory=list)
    """Against the prompt of the attempt before; empty for the first."""
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """``kind`` colours the badge that shows ``label``; ``reason`` says in words why the episode stopped
    (empty where it did not)."""

    kind: Literal["passed", "below", "failed", "incomplete"]
    label: str
    reason: str


def read_attempts(session: Session, album: Album) -> list[Attempt]:
    """All images made, in order, with the score each was given; the kept one is marked as chosen.

    Kept is the one that the answer names, or else the best scored, or else the last.
    """
    attempts: list[Attempt] = []
    for call, result in _finished_calls(session):
        payload = result.get("payload") or {}
        arguments = _arguments(call)
        if call.get("tool") == "image_gen":
            image = next((i for i in result.get("images") or [] if i.get("role") == "synthesis"), None)
            if image is None:
                continue
            index = payload.get("image_index") or image.get("index") or len(attempts) + 2
            prompt = str(arguments.get("prompt") or "")
            thumbnail = album.photo(image, SMALL)
            attempt = Attempt(len(attempts) + 1, index, prompt, image, thumbnail, payload)
            if attempts:
                attempt.changes = word_changes(attempts[-1].prompt, prompt)
            attempts.append(attempt)
        elif call.get("tool") == "quality_eval":
            judged = [a for a in attempts if a.index == arguments.get("anomaly_image")]
            for attempt in judged:
                attempt.review = str(payload.get("review") or "")
                attempt.score = _number(payload.get("score"))
                attempt.location_score = _number(payload.get("location_score"))
                attempt.quality_score = _number(payload.get("quality_score"))
    if attempts:
        answered = [a for a in attempts if a.index == _answer(session).get("final_image_index")]
        best = max(attempts, key=lambda a: (-1.0 if a.score is None else a.score, a.number))
        (answered[0] if answered else best).chosen = True
    return attempts


def read_mask(session: Session, chosen: Attempt | None) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The image entry (or None) and the tool's facts of the last mask that was made for the kept image."""
    found: tuple[dict[str, Any] | None, dict[str, Any]] = (None, {})
    for call, result in _finished_calls(session):
        arguments = _arguments(call)
        image = next((i for i in result.get("images") or [] if i.get("role") == "mask"), None)
        if image and chosen and arguments.get("anomaly_image") == chosen.index:
            found = image, result.get("payload") or {}
    return found


def judge(session: Session, result: dict[str, Any], chosen: Attempt | None) -> Verdict:
    """The verdict over the whole run; ``result`` is result.json or empty."""
    if session.end is None:
        return Verdict("incomplete", "Incomplete", "")
    stop = str(session.end.get("stop_reason"))
    reason = STOPPED.get(StopReason(stop), stop) if stop in list(StopReason) else stop
    if session.end.get("error"):
        reason = f"{reason}: {session.end['error']}"
    threshold = session.start.get("task", {}).get("threshold")
    score = result.get("score", chosen.score if chosen else None)
    passed = result.get("passed", score is not None and threshold is not None and score >= threshold)
    if chosen and passed:
        return Verdict("passed", "Passed", reason)
    if chosen and stop in (StopReason.ANSWERED, StopReason.MAX_TURNS):
        if score is None:
            return Verdict("below", "Not scored", reason)
        good = threshold is not None and score >= threshold
        return Verdict("below", "No mask" if good and not result.get("mask") else "Below threshold", reason)
    return Verdict("failed", "Failed", reason)


def read_facts(session: Session, result: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and value of what one wants to know about a run, without those that are not recorded."""
    task, end = session.start.get("task") or {}, session.end or {}
    policy: dict[str, Any] = session.start.get("policy") or {}
    model = policy.get("model")
    seconds, cost = end.get("seconds", result.get("seconds")), end.get("cost_usd", result.get("cost_usd"))
    if seconds is None and len(session.events) > 1:
        times = [datetime.fromisoformat(session.events[position]["time"]) for position in (0, -1)]
        seconds = (times[1] - times[0]).total_seconds()
    if cost is None:
        cost = sum(event.get("cost_usd") or 0 for event in session.of_type("tool_result"))
    backends = _backends(session, result)
    if len(backends) > 1 and len(set(backends.values())) == 1:
        backends = {"all tools": next(iter(backends.values()))}
    turns = sum(event.get("role") == "assistant" for event in session.of_type("message"))
    facts: list[tuple[str, Any]] = [
        ("Photo", task.get("image")),
        ("Region", task.get("region")),
        ("Seed", task.get("seed")),
        ("Policy", f"{policy.get('name')} ({model})" if model else policy.get("name")),
        ("Backends", ", ".join(f"{tool}: {name}" for tool, name in backends.items())),
        ("Turns", f"{turns} of {task['max_turns']}" if "max_turns" in task else turns),
        ("Time", f"{seconds:.1f} s" if seconds is not None else None),
        ("Cost", f"${cost:.4f}" if cost else "nothing"),
        ("Threshold", f"{task['threshold']:g} of 10" if "threshold" in task else None),
        ("Recorded", session.start.get("time", "")[:19].replace("T", " ") + " UTC" if session.start else None),
        ("Session", session.start.get("session_id")),
    ]
    return [(label, str(value)) for label, value in facts if value not in (None, "")]


def read_ledger(session: Session) -> dict[str, dict[str, Any]]:
    """Calls, seconds and US dollars by tool, as the session's end gives them; empty where it has none."""
    given = (session.end or {}).get("ledger")
    return given if isinstance(given, dict) else {}


def _backends(session: Session, result: dict[str, Any]) -> dict[str, str]:
    """Backend by tool, from result.json or else from what the tools said."""
    given = result.get("backends")
    if isinstance(given, dict):
        return {str(tool): str(name) for tool, name in given.items()}
    return {
        str(call.get("tool")): str(result_event["payload"]["backend"])
        for call, result_event in _finished_calls(session)
        if (result_event.get("payload") or {}).get("backend")
    }


def _answer(session: Session) -> dict[str, Any]:
    answer = (session.end or {}).get("answer")
    return answer if isinstance(answer, dict) else {}


def _arguments(call: dict[str, Any]) -> dict[str, Any]:
    """What a call was given; empty where a policy wrote something else than an object."""
    arguments = call.get("arguments")
    return arguments if isinstance(arguments, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _finished_calls(session: Session) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Tool calls with their results, in the order of the results."""
    calls = {event.get("call_id"): event for event in session.of_type("tool_call")}
    return [(calls.get(e.get("call_id"), e), e) for e in session.of_type("tool_result")]
