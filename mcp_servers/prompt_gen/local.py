"""Writes editing prompts from the knowledge base and from what the photo shows; no model, no network.

Every prompt has one frame, so that a policy can change single words of it and a renderer can read it:
"Using the provided image, change only PLACE to introduce DEFECT. The defect is SIZE and SEVERITY in strength.
(how it meets the material; how the photo is lit) Everything else ... stays exactly as it is."
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from mcp_servers.errors import ToolInputError
from mcp_servers.knowledge.catalogue import material_of, profile_for
from mcp_servers.knowledge.families import DefectProfile, Family
from mcp_servers.prompt_gen.wording import CLOSING, INTERACTIONS, NAMES, RELIEF, SKINS
from mcp_servers.vision.pixels import spread
from mcp_servers.vision.scene import Scene, analyse, grey

ORIENTED = 0.35
"""Coherence of the texture above which a surface counts as brushed, woven or striped."""
DIM, BRIGHT = 85.0, 170.0
"""Mean grey level of the part (0-255) below which it is called dim and above which it is called bright."""
NEUTRAL = 18.0
"""Mean spread between the colour channels (0-255) of the part below which its tones are called neutral."""


class PromptResult(BaseModel):
    """An editing prompt and where it comes from; ``known`` is False where it was derived from general pages."""

    prompt: str
    item_name: str
    anomaly_type: str
    family: str
    known: bool
    note: str


def generate_prompt(rgb: NDArray[np.uint8] | None, item_name: str, anomaly_type: str) -> PromptResult:
    """One paragraph of about 60 to 110 words that asks an image editor for one defect. Deterministic.

    rgb: the photo of a good part, (H, W, 3) uint8 sRGB, at least 8 x 8 pixels, or None for a prompt without
    measurements. Raises ToolInputError for a photo of another shape or type and for names that cannot be looked
    up, and UnknownAnomalyType (a ToolInputError) for a type that names no defect.
    """
    profile = profile_for(item_name, anomaly_type)
    scene = None if rgb is None else analyse(_checked(rgb))
    material = material_of(item_name)
    skin, texture = SKINS[material]
    sentences = [
        f"Using the provided image, change only {profile.place} to introduce {_defect(profile, material, scene)}.",
        f"The defect is {profile.size} and {profile.severity} in strength.",
        INTERACTIONS[profile.family].format(skin=skin, texture=texture),
    ]
    if rgb is not None and scene is not None:
        sentences.append(_lighting(rgb, scene, profile))
    if profile.known:
        note = f"from {profile.source}"
    else:
        note = f"{anomaly_type!r} on {item_name!r} has no section of its own; derived from {profile.source}"
    return PromptResult(
        prompt=" ".join([*sentences, CLOSING]),
        item_name=item_name,
        anomaly_type=anomaly_type,
        family=profile.family.value,
        known=profile.known,
        note=note,
    )


def _checked(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or min(rgb.shape[:2]) < 8:
        raise ToolInputError(f"the photo must be (H, W, 3) uint8, at least 8 x 8, not {rgb.shape} {rgb.dtype}")
    return rgb


def _defect(profile: DefectProfile, material: str, scene: Scene | None) -> str:
    """The noun, its colour where the noun does not name it yet, and the direction in which it runs."""
    phrase = profile.noun
    if profile.colour and phrase.startswith("a coloured "):
        phrase = phrase.replace("coloured", profile.colour, 1)
    elif profile.colour and not set(profile.colour.split()) & set(phrase.split()):
        phrase = f"{phrase}, {profile.colour} in colour"
    if "grain" in phrase:
        return phrase
    direction = _direction(profile.family, material, scene)
    return f"{phrase}, {direction}" if direction else phrase


def _direction(family: Family, material: str, scene: Scene | None) -> str:
    """How the defect lies to the grain that the photo shows; "" where a direction would mean nothing."""
    along = family is Family.CRACK or (family is Family.STAIN and material == "wood")
    if not along and family not in {Family.SCRATCH, Family.CUT}:
        return ""
    if scene is not None and scene.grain.coherence > ORIENTED:
        turn = scene.grain.angle_deg % 180
        word = "horizontal" if min(turn, 180 - turn) < 20 else "vertical" if abs(turn - 90) < 20 else "diagonal"
        return f"running {'along' if along else 'across'} the {word} grain"
    if material == "wood":
        return f"running {'along' if along else 'across'} the grain"
    return "running diagonally" if family in {Family.SCRATCH, Family.CUT} else ""


def _lighting(rgb: NDArray[np.uint8], scene: Scene, profile: DefectProfile) -> str:
    """One sentence on brightness and tone of the part in the photo, and what that does to the defect."""
    level = float(grey(rgb)[scene.part].mean())
    colours = spread(rgb)[scene.part]
    what = "part" if scene.kind == "object" else "surface"
    tone = "neutral" if float(colours.mean()) < NEUTRAL else "rich"
    if level < DIM:
        light, relief = "dim", "catches a glint against the shade"
    elif level > BRIGHT:
        light, relief = "bright", "shows by its own soft shadow"
    else:
        light, relief = "evenly lit", "shows by glint and shade in equal measure"
    effect = relief if profile.family in RELIEF else "takes on the same exposure and sharpness"
    return f"The {what} is {light} with {tone} tones in this photo, so the {_name(profile.family)} {effect}."


def _name(family: Family) -> str:
    return NAMES.get(family, family.value)
