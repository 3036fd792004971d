"""A policy's turns recorded and replayed, so that a whole episode can be had again without one call of its model.

Kept apart from the recording of tools: training records the tools alone, since there the policy changes all the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from agent.policies import ModelCall, Policy, PolicyError, Reply
from agent.protocol import Message
from agent.recording_store import Entry, RecordingError, key_of
from agent.replay import Mode, Recording

NOT_THE_TURN = frozenset({"base_url", "price_known"})
"""What a policy says of itself and its turns do not depend on: the same model at another address writes the same."""


class RecordedPolicy(Policy):
    """A ``Policy`` that keeps another one's turns in a recording, or takes them from there.

    A turn is kept under what the policy says of itself (``describe``: model, dialect, sampling), the conversation
    (images by content) and the tools' ``signatures``. Failures are not kept.
    """

    def __init__(self, policy: Policy, recording: Recording, signatures: Sequence[dict[str, Any]]) -> None:
        self.name = policy.name
        self._policy, self._recording, self._signatures = policy, recording, list(signatures)

    def describe(self) -> dict[str, Any]:
        return self._policy.describe()

    def max_cost_usd(self, messages: Sequence[Message]) -> float:
        """0 where the next turn is recorded, else what the policy says."""
        if self._recording.mode is Mode.REPLAY or self._recording.answers(self._key(messages, self._signatures)):
            return 0.0
        return self._policy.max_cost_usd(messages)

    async def next_turn(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]]) -> Reply:
        """The recorded turn, else a new one that is recorded.

        Raises PolicyError where the policy does, for a turn that is not recorded and for a damaged recording.
        """
        key = self._key(messages, signatures)
        try:
            async with self._recording.lock(key):
                if reply := await self._recording.get(key, lambda entry: _replayed(key, entry)):
                    return reply
                if self._recording.mode is Mode.REPLAY:
                    raise PolicyError(self._recording.missing(f"this turn of the policy {self.name}", key))
                reply = await self._policy.next_turn(messages, signatures)
                seconds, cost = (reply.call.seconds, reply.call.cost_usd) if reply.call else (0.0, 0.0)
                await self._recording.put(Entry(self._question(messages, signatures), asdict(reply), seconds, cost))
                return replace(reply, key=key)
        except RecordingError as error:
            raise PolicyError(str(error)) from error

    def _key(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]]) -> str:
        return key_of(self._question(messages, signatures))

    def _question(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What a turn depends on; the conversation and the signatures, which are long, as digests."""
        said = [
            {"role": m.role, "name": m.name, "content": m.content, "images": [image.sha256 for image in m.images]}
            for m in messages
        ]
        described = {name: value for name, value in self.describe().items() if name not in NOT_THE_TURN}
        return {
            "policy": described,
            "messages": len(said),
            "conversation": key_of({"messages": said}),
            "signatures": key_of({"signatures": list(signatures)}),
        }


def _replayed(key: str, entry: Entry) -> Reply:
    fields = dict(entry.answer)
    call: dict[str, Any] | None = fields.pop("call")
    if call is not None:
        call = {name: tuple(value) if isinstance(value, list) else value for name, value in call.items()}
    return Reply(**fields | {"call": ModelCall(**call) if call else None, "key": key, "replayed": True})
