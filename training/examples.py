"""One session as one training example: the conversation as a model is shown it, and the facts to choose it by.

Messages have the conversational format of vision-language trainers: a role and a list of parts, the text before the
images of the same message, as the agent sends them to a model. Nothing here needs token ids, so a session recorded
while another agent drove the tools becomes an example in the same way.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.policies.pictures import picture_for_model
from agent.protocol import ProtocolError, parse_turn
from agent.session import Session
from training.reward_config import RewardConfig
from training.rewards import excluded, reward
from training.sessions import logged_totals
from training.trace import Trace, read_trace

ROLES = frozenset({"system", "user", "assistant", "tool"})
KINDS = ("single", "dual", "triple", "other")
_CUT = "the log was edited or damaged, leave this session out"
_LETTERS = {"prompt_gen": "P", "image_gen": "I", "quality_eval": "Q", "knowledge_retrieval": "K", "mask_gen": "M"}
_SHAPES = {"single": "PIQM", "dual": "PIQK?IQM", "triple": "PIQK?IQK?IQM"}


class DataError(ValueError):
    """Sessions that cannot become training data; the message names the session and the cure."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A recorded picture: its file, and the SHA-256 that the file's bytes had when it was read."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation and what is known of it.

    ``messages``: role and content parts, {"type": "text", "text": ...} or {"type": "image"}. ``pictures``: the
    recorded images in the order of the image parts. ``sources``: fingerprints of the photos that the example stems
    from; examples that share one belong on the same side of a split. ``kind`` and ``kr``: the trajectory's type and
    whether knowledge was retrieved. ``score`` (0-10): the final image's, None where it was not judged. ``excluded``:
    why the episode says nothing about its policy, else "".
    """

    messages: Sequence[dict[str, Any]]
    pictures: Sequence[StoredImage]
    task: dict[str, Any]
    session: str
    session_id: str
    original_sha256: str
    sources: frozenset[str]
    kind: str
    kr: bool
    score: float | None
    reward: float
    stop_reason: str
    policy: str
    constructed: bool
    protocol_hash: str
    repairs: int
    refusals: int
    excluded: str = ""
    side: int = field(default=768)

    @property
    def images(self) -> list[bytes]:
        """The pictures as a model is shown them: PNG bytes, at most ``side`` pixels on the longer side.

        Read from disk at every call, so that a large set need not lie in memory. Raises DataError where a file has
        gone or changed since.
        """
        return [picture_for_model(_read(self.session, picture), self.side) for picture in self.pictures]

    @property
    def turns(self) -> tuple[str, ...]:
        """The assistant's turns, in order."""
        return tuple(part["text"] for m in self.messages if m["role"] == "assistant" for part in m["content"][:1])


def example_of(session: Session, rewards: RewardConfig, side: int) -> Example:
    """The example that a session gives.

    The reward is the last one appended to the log under this configuration, else it is computed here. Turns that the
    loop could not use, and its requests to write them again, are left out of the conversation: nobody should learn
    them. Raises DataError where the conversation or a picture is missing, damaged or inconsistent.
    """
    where = str(session.folder)
    trace = read_trace(session)
    if trace.unusable > int((session.end or {}).get("repairs") or 0):
        raise DataError(f"{where}: {_unreadable(session)}: {_CUT}")
    messages, pictures = _conversation(session, trace)
    if not pictures:
        raise DataError(f"{where}: the conversation shows no photo: leave this session out")
    start, task = session.start, dict(session.start.get("task") or {})
    totals = logged_totals(session, rewards.hash)
    constructed = start.get("constructed")
    policy = start.get("policy") or {}
    original = pictures[0].sha256
    final = trace.answer.final_image_index if trace.answer else None
    kind, kr = kind_of(trace)
    return Example(
        messages=messages,
        pictures=pictures,
        task=task,
        session=where,
        session_id=str(start.get("session_id", "")),
        original_sha256=original,
        sources=frozenset({original, *_sources(constructed)}),
        kind=kind,
        kr=kr,
        score=trace.scores.get(final) if final is not None else None,
        reward=float(totals[-1]["value"]) if totals else reward(trace, rewards).total,
        stop_reason=trace.stop_reason,
        policy=str(policy.get("name", "")),
        constructed=bool(constructed),
        protocol_hash=str(start.get("protocol_hash", "")),
        repairs=trace.unusable,
        refusals=trace.refusals,
        excluded=excluded(trace),
        side=side,
    )


def kind_of(trace: Trace) -> tuple[str, bool]:
    """The trajectory's type by the paper (single, dual, triple, else other) and whether it retrieved knowledge.

    Calls that a tool refused do not count.
    """
    calls = "".join(_LETTERS.get(action.kind, "?") for action in trace.actions if action.ok)
    kind = next((kind for kind, shape in _SHAPES.items() if re.fullmatch(shape, calls)), "other")
    return kind, "K" in calls


def _conversation(session: Session, trace: Trace) -> tuple[list[dict[str, Any]], list[StoredImage]]:
    """Messages and pictures without the turns that were not used."""
    where = session.folder
    messages: list[dict[str, Any]] = []
    pictures: list[StoredImage] = []
    made: list[Any] = []
    turn = 0
    dropped = False
    last = ""
    for event in session.events:
        if event["type"] == "tool_result":
            made = [image["sha256"] for image in event.get("images") or [] if image.get("role") == "synthesis"]
            if event.get("tool") == "image_gen" and event.get("ok") and not made:
                raise DataError(f"{where}: result {event.get('seq')} of image_gen holds no image: {_CUT}")
        if event["type"] != "message":
            continue
        role, text = str(event.get("role")), event.get("content")
        if role == last == "assistant":
            raise DataError(f"{where}: message {event.get('seq')} is a second turn in a row: {_CUT}")
        if role == "tool" and [image.get("sha256") for image in event.get("images") or []] != made:
            raise DataError(f"{where}: message {event.get('seq')} does not show the image that was made: {_CUT}")
        last = role
        if role not in ROLES or not isinstance(text, str):
            raise DataError(f"{where}: message {event.get('seq')} has no known role or no text: leave this session out")
        if role == "assistant":
            dropped = trace.actions[turn].kind == "unusable"
            turn += 1
            if dropped:
                continue
        elif dropped and role == "user":
            dropped = False
            continue
        shown = [StoredImage(_path(session, entry), str(entry["sha256"])) for entry in event.get("images") or []]
        for picture in shown:
            _read(str(where), picture)
        pictures += shown
        messages.append(
            {"role": role, "content": [{"type": "text", "text": text}, *({"type": "image"} for _ in shown)]}
        )
    return messages, pictures


def _unreadable(session: Session) -> str:
    """Which turn cannot be read though the log tells of no such turn, and why."""
    turns = [event for event in session.of_type("message") if event.get("role") == "assistant"]
    for number, event in enumerate(turns, 1):
        try:
            parse_turn(str(event.get("content")))
        except ProtocolError as error:
            return f"turn {number} cannot be read ({error})"
    return "an answer was sent back, but session_end counts no repair"


def _sources(constructed: Any) -> set[str]:
    """The real defect that a constructed session was made from, and the photograph that its image was cut from."""
    told = constructed if isinstance(constructed, dict) else {}
    return {str(told[name]) for name in ("source", "photograph") if told.get(name)}


def _path(session: Session, entry: dict[str, Any]) -> Path:
    digest = str(entry.get("sha256"))
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise DataError(f"{session.folder}: {digest[:16]!r} is no image's SHA-256: the log was edited or damaged")
    return session.folder / "images" / f"{digest}.png"


def _read(session: str, picture: StoredImage) -> bytes:
    try:
        png = picture.path.read_bytes()
    except OSError as error:
        cure = "restore its images folder or leave this session out"
        raise DataError(f"{session}: image {picture.sha256[:12]} cannot be read ({error.strerror}): {cure}") from error
    if hashlib.sha256(png).hexdigest() != picture.sha256:
        raise DataError(f"{session}: image {picture.sha256[:12]} is not the one recorded: restore it from a copy")
    return png
