"""``render``: photo + prompt + seed -> the same photo with one defect. Reads top to bottom.

The prompt becomes a ``DefectSpec`` (spec.py), the photo a ``Scene``; a site is chosen (place.py), a window cut
(canvas.py), the family draws into it (families/), and the result is laid over the photo.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mcp_servers.errors import RegionError
from mcp_servers.image_gen.local import families
from mcp_servers.image_gen.local.canvas import cut, paste
from mcp_servers.image_gen.local.place import Placer, Site, region_mask
from mcp_servers.image_gen.local.spec import DefectSpec, parse_prompt
from mcp_servers.image_gen.local.streams import Streams
from mcp_servers.image_gen.local.transplant import Patient, transplant
from mcp_servers.image_gen.local.transplant_piece import Example
from mcp_servers.knowledge.families import Family
from mcp_servers.vision.scene import analyse
from mcp_servers.vision.types import Field, Image, Mask

NEUTRAL = 12
"""Difference between the channels of a named colour up to which it leaves a grey photo grey."""

SPREAD = 0.75, 1.7
"""How much smaller and larger than its word a defect is, drawn per seed."""

TRIES = 12
"""How many sites are tried for one defect before it is refused, every fourth in a window of twice the size."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """A rendered defect.

    ``rgb``: (H, W, 3) float32 sRGB 0-255, unrounded; equal to the input where ``alpha`` is 0. ``alpha``:
    (H, W) float32 in [0, 1], feathered support of the defect. ``spec``: what was read from the prompt.
    ``box``: (x, y, width, height) of alpha > 0. ``notes``: what could not be done as asked.
    """

    rgb: Field
    alpha: Field
    spec: DefectSpec
    box: tuple[int, int, int, int]
    notes: list[str]


def render(
    rgb: Image,
    prompt: str,
    seed: int,
    region: Mask | tuple[int, int, int, int] | None = None,
    *,
    example: Example | None = None,
    count: int = 0,
    size: str = "",
    severity: str = "",
) -> Rendering:
    """Render the defect that the prompt describes, or transplant the one that an example shows.

    rgb: (H, W, 3) uint8 sRGB. seed: any integer; the same arguments give the same bytes. region: (H, W) bool or box
    (x, y, width, height), where the defect may be. count, size, severity: instead of what the prompt says (0 and "":
    as it says). Raises PromptNotUnderstood (not with an example), RegionError.
    """
    otherwise = Family.STAIN if example else None
    spec = parse_prompt(prompt, count=count, size=size, severity=severity, otherwise=otherwise)
    spec = spec.in_one_colour(Streams(seed)("colour"))
    recipe = families.FAMILIES[spec.family]
    scene = analyse(rgb)
    allowed, chosen = region_mask(region, scene)
    placer = Placer(rgb, scene, allowed)
    coloured = spec.colour is not None and max(spec.colour) - min(spec.colour) > NEUTRAL
    stays_grey = not coloured and bool((rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all())
    reach = allowed if recipe.stays_on_part else chosen
    out = rgb.astype(np.float32)
    alpha = np.zeros(rgb.shape[:2], np.float32)
    notes: list[str] = []
    first: Site | None = None
    strict = region is not None
    if example is not None:
        fence = chosen if strict else np.ones_like(chosen)
        patient = Patient(out, alpha, rgb, scene, placer, allowed, fence, stays_grey)
        notes = transplant(patient, example, spec, seed)
        if not alpha.any():
            raise RegionError(
                "the example's defect does not show there; allow a larger region, or ask for another place"
            )
        return Rendering(rgb=out, alpha=alpha, spec=spec, box=_box(alpha), notes=notes)
    soft = "soft" in spec.shapes
    placed = 0
    for index in range(spec.count):
        streams = Streams(seed).part(index)
        share = spec.count**-0.45 * float(np.exp(streams("size").uniform(*np.log(SPREAD))))
        for attempt in range(TRIES):
            place = streams.part(attempt) if attempt else streams
            around = first if spec.clustered else None
            site, said = placer.choose(spec, recipe.habit, place, share, around)
            canvas = cut(out, scene, reach, site, strict=strict, wider=2.0 ** (attempt // 4))
            try:
                layer = recipe.draw(canvas, spec, streams)
            except RegionError:  # this site cannot carry the defect (no trace, no outline in view): try another
                if attempt == TRIES - 1 and not placed:
                    raise
                continue
            before = int(np.count_nonzero(alpha))
            if paste(out, alpha, canvas, layer, streams("noise"), stays_grey, soft):
                first = first or site
                placed += int(np.count_nonzero(alpha) > before)
                placer.avoid(alpha)
                notes += [note for note in (*said, *layer.notes) if note not in notes]
                break
    if not alpha.any():
        raise RegionError(
            f"no room for this {spec.family.value.replace('_', ' ')} there; allow a larger region, for edges one that "
            "holds a piece of the part's outline"
        )
    if placed < spec.count:
        notes.append(
            f"{placed} of {spec.count} drawn: there is no room for more; allow a larger region or a smaller size"
        )
    return Rendering(rgb=out, alpha=alpha, spec=spec, box=_box(alpha), notes=notes)


def _box(alpha: Field) -> tuple[int, int, int, int]:
    """Bounding box (x, y, width, height) of alpha > 0; all zeros where there is none."""
    ys, xs = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    if len(ys) == 0:
        return (0, 0, 0, 0)
    return int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)
