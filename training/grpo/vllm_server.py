"""Turns from a vLLM server: every one is a request of its own, so that the server batches continuously.

TRL's own ``VLLMGeneration.generate`` gathers the prompts of all processes in server mode, which episodes that go on at
their own pace cannot wait for. Here each process asks the server itself, in the wire format of TRL 1.16's
``VLLMClient``: images are prepared first (``/v1/chat/completions/render``), then sent with the ids
(``/inference/v1/generate``).
"""

from __future__ import annotations

import base64
import hashlib
import logging
import ssl
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import anyio
import httpx2

from agent.policies import PolicyError
from training.encoding import Encoded, Encoder
from training.errors import TrainingError
from training.generation import Generated, Sampling
from training.grpo.vllm import SERVE, finished_turn, image_places, known_logprob, sampling_parameters

log = logging.getLogger(__name__)

FINAL_ONLY = 2
"""vLLM's RequestOutputKind for a reply that comes whole."""


@dataclass(frozen=True, slots=True)
class Patience:
    """``seconds`` for one turn, its repetitions included. A connection that fails and an error of the server (5xx) are
    tried ``attempts`` times in all, ``wait`` seconds apart and twice as long each time.
    """

    seconds: float = 600.0
    attempts: int = 4
    wait: float = 1.0


def connect(
    url: str, encoder: Encoder, sampling: Sampling, patience: Patience | None = None, pictures: int = 32
) -> VllmServer:
    """Find out what a vLLM server serves. Raises TrainingError where none answers as one.

    Warns where its log-probabilities are not those of the distribution that is sampled from, or where it does not say.
    """
    url = url.rstrip("/")
    try:
        with httpx2.Client(trust_env=False, timeout=30.0) as http:
            models = http.get(f"{url}/v1/models").raise_for_status().json()
            info = http.get(f"{url}/server_info", params={"config_format": "json"})
            mode = info.json()["vllm_config"]["model_config"]["logprobs_mode"] if info.is_success else None
        served = models["data"][0]
        name, room = str(served["id"]), int(served["max_model_len"])
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, LookupError, TypeError) as error:
        raise TrainingError(f"no vLLM server answers at {url} ({error}): start {SERVE}, or name its URL") from error
    if mode is None:
        log.warning("%s does not tell its settings, and cannot be given weights: start %s", url, SERVE)
    elif mode != "processed_logprobs":
        log.warning(
            "%s tells %s, which are not the probabilities of what it samples: start it with "
            "--logprobs-mode processed_logprobs",
            url,
            mode,
        )
    return VllmServer(url, name, room, encoder, sampling, patience or Patience(), pictures)


class VllmServer:
    """Turns from a vLLM server, each asked for by itself and as soon as its episode needs it.

    ``room``: tokens that the server's context holds. ``pictures``: how many prepared images are kept to be sent again
    with later turns (about 9 MB for one of 768 x 768 pixels). ``failure`` is what was last wrong with the server
    itself: no other episode would fare better. Make it with ``connect``.
    """

    def __init__(
        self, url: str, model: str, room: int, encoder: Encoder, sampling: Sampling, patience: Patience, pictures: int
    ) -> None:
        self.url, self.model, self._room = url, model, room
        self.encoder, self.sampling, self.patience = encoder, sampling, patience
        self.failure: Exception | None = None
        self._parameters = sampling_parameters(sampling, encoder.processor.tokenizer)
        self._tls = ssl.create_default_context()
        self._pictures: OrderedDict[str, _Picture] = OrderedDict()
        self._most_pictures = pictures

    @property
    def room(self) -> int:
        """Tokens that the server's context holds."""
        return self._room

    async def turn(self, prompt: Encoded, draw: Random) -> Generated:
        """One turn for a prompt; ``draw`` gives its seed. Cancelling it aborts the server's work on it.

        Raises PolicyError.
        """
        seed = draw.getrandbits(31)
        try:
            with anyio.fail_after(self.patience.seconds):
                async with httpx2.AsyncClient(verify=self._tls, trust_env=False, timeout=None) as http:
                    features = await self._features(http, prompt)
                    request = {
                        "model": self.model,
                        "token_ids": prompt.ids,
                        "features": features,
                        "sampling_params": {**self._parameters, "seed": seed, "output_kind": FINAL_ONLY},
                    }
                    reply = await self._post(http, "/inference/v1/generate", request)
        except TimeoutError as error:
            raise PolicyError(
                f"vLLM at {self.url} wrote no turn within {self.patience.seconds:g} s: run fewer episodes at once, "
                "bound the turn's tokens, or wait longer"
            ) from error
        return self._read(reply)

    def _read(self, reply: Any) -> Generated:
        try:
            (choice,) = reply["choices"]
            ids, reason = [int(token) for token in choice["token_ids"]], choice["finish_reason"]
            logprobs = [known_logprob(entry["logprob"]) for entry in choice["logprobs"]["content"]]
        except (LookupError, TypeError, ValueError) as error:
            raise self._malformed("/inference/v1/generate", error) from error
        if reason not in ("stop", "length"):
            raise PolicyError(f"vLLM at {self.url} ended a turn with {reason!r}: was it paused?")
        return finished_turn(self.encoder.processor.tokenizer, ids, logprobs, reason)

    async def _features(self, http: httpx2.AsyncClient, prompt: Encoded) -> dict[str, Any] | None:
        """The prompt's images as the server prepared them, at their places among the ids."""
        if not prompt.pictures:
            return None
        found = [await self._picture(http, png) for png in prompt.pictures]
        places = image_places(prompt.ids, self.encoder.processor.image_token_id)
        ours, theirs = [place["length"] for place in places], [picture.tokens for picture in found]
        if ours != theirs:
            raise self._broken(
                f"makes {theirs} tokens of the images, the trainer {ours}: serve the folder that "
                "is trained, with its own preprocessor_config.json"
            )
        return {
            "mm_hashes": {"image": [picture.hash for picture in found]},
            "mm_placeholders": {"image": places},
            "kwargs_data": {"image": [picture.data for picture in found]},
        }

    async def _picture(self, http: httpx2.AsyncClient, png: bytes) -> _Picture:
        """One image as the server prepares it, in a conversation of its own: that depends on the image alone."""
        key = hashlib.sha256(png).hexdigest()
        if key not in self._pictures:
            image = {"url": f"data:image/png;base64,{base64.b64encode(png).decode()}"}
            messages = [{"role": "user", "content": [{"type": "image_url", "image_url": image}]}]
            request = {"model": self.model, "messages": messages, "max_tokens": 1}
            reply = await self._post(http, "/v1/chat/completions/render", request)
            try:
                features = reply["features"]
                ((name,), (place,)) = features["mm_hashes"]["image"], features["mm_placeholders"]["image"]
                (data,) = features["kwargs_data"]["image"]
                self._pictures[key] = _Picture(str(name), str(data), int(place["length"]))
            except (LookupError, TypeError, ValueError) as error:
                raise self._malformed("/v1/chat/completions/render", error) from error
        picture = self._pictures[key]
        self._pictures.move_to_end(key)
        if len(self._pictures) > self._most_pictures:
            self._pictures.popitem(last=False)
        return picture

    async def _post(self, http: httpx2.AsyncClient, path: str, body: Mapping[str, Any]) -> Any:
        """The reply to a request, as JSON. Raises PolicyError."""
        problem = ""
        for attempt in range(self.patience.attempts):
            if attempt:
                await anyio.sleep(self.patience.wait * 2 ** (attempt - 1))
            try:
                response = await http.post(self.url + path, json=body)
            except httpx2.RequestError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if response.status_code < 500:
                break
            problem = f"{response.status_code}: {response.text[:300]}"
        else:
            raise self._broken(f"failed {self.patience.attempts} times ({problem}): see its log, or start {SERVE}")
        if response.status_code == 404:
            raise self._broken(f"has no {path}: start it with --enable-scale-out (vLLM 0.30 or later)")
        if not response.is_success:
            raise PolicyError(f"vLLM at {self.url} refused {path} ({response.status_code}): {response.text[:300]}")
        try:
            return response.json()
        except ValueError as error:
            raise self._malformed(path, error) from error

    def _malformed(self, path: str, error: Exception) -> PolicyError:
        return self._broken(
            f"answers {path} in another form than TRL 1.16 knows ({error!r}): serve with vLLM 0.22 to 0.31"
        )

    def _broken(self, problem: str) -> PolicyError:
        error = PolicyError(f"vLLM at {self.url} {problem}")
        self.failure = error
        return error


@dataclass(frozen=True, slots=True)
class _Picture:
    """An image as the server prepared it: its hash, its patches (base64), and how many tokens it takes."""

    hash: str
    data: str
    tokens: int
