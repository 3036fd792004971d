"""Phrases that recur from session to session, for a tiny model's tokenizer: one token each.

A conversation of the protocol is mostly the same words again: the rules, the tools' signatures, the frame of every
observation. A large model reads them all the time; a tiny one on a CPU has no time for that. With each such phrase as
one token a conversation is a quarter as long, and what is left is what differs: items, prompts, scores, reviews.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

ROUNDS = 14
"""Merging rounds; each may double a phrase's length."""


def recurring_phrases(texts: Sequence[Sequence[str]], tokenizer: Any, share: float, most: int = 1024) -> list[str]:
    """Phrases of more than one word that occur in at least ``share`` (above 0 to 1) of the documents.

    ``texts``: the messages of each document; no phrase spans two messages. A message that recurs is a phrase. In the
    others, neighbours that often stand together are merged, all at once, until no pair is left (Re-Pair on the
    tokenizer's own tokens); numbers stay outside, digit by digit, for they are what differs. The commonest ``most``
    are kept, and none begins or ends in a line break, which a template may put there too.
    """
    least = max(2, share * len(texts))
    whole = Counter(text for messages in texts for text in set(messages))
    same = [text for text, count in whole.items() if count >= least]
    documents = [[_pieces(text, tokenizer) for text in messages if whole[text] < least] for messages in texts]
    for _ in range(ROUNDS):
        counts = _document_counts(documents)
        often = {pair for pair, count in counts.items() if count >= least and not any(map(_numeric, pair))}
        if not often:
            break
        documents = [[_merged(message, often) for message in messages] for messages in documents]
    seen = Counter(piece for messages in documents for piece in set(itertools.chain.from_iterable(messages)))
    single = {tokenizer.decode([token]) for token in range(len(tokenizer))}
    merged = [piece for piece, count in seen.most_common() if count >= least]
    fit = [text for text in same + merged if text not in single and text == text.strip("\r\n") and "\ufffd" not in text]
    return fit[:most]


def _pieces(text: str, tokenizer: Any) -> list[str]:
    """A text as the strings of its tokens; bytes that are no character by themselves stay with their neighbours."""
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    return [text[start:end] for start, end in offsets if end > start]


def _numeric(piece: str) -> bool:
    """Whether a piece belongs to a number: a digit, or a point, which may stand between digits."""
    return piece.strip().isdigit() or piece.lstrip().startswith(".")


def _document_counts(documents: Sequence[Sequence[Sequence[str]]]) -> Counter[tuple[str, str]]:
    """In how many documents each pair of neighbours occurs."""
    counts: Counter[tuple[str, str]] = Counter()
    for messages in documents:
        counts.update({pair for message in messages for pair in itertools.pairwise(message)})
    return counts


def _merged(message: Sequence[str], often: set[tuple[str, str]]) -> list[str]:
    """A message whose frequent pairs are merged, from left to right, each piece once."""
    merged: list[str] = []
    at = 0
    while at < len(message):
        if at + 1 < len(message) and (message[at], message[at + 1]) in often:
            merged.append(message[at] + message[at + 1])
            at += 2
        else:
            merged.append(message[at])
            at += 1
    return merged
