"""The defect families: how each one looks.

A family is a function in one of this folder's files:

    def draw(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
        rng = streams("shape")                     # geometry; "texture" for surface detail; never the photo
        field = blob(canvas, rng, 0.5 * canvas.length)   # > 0 inside, px
        gain = np.exp(-canvas.depth(spec.strength) * ramp(field, -2, 2))
        return Layer(canvas.shaded(gain), ramp(field, -3, 1))

Draw in canvas pixels around ``canvas.centre`` with the extent ``canvas.length`` and the direction
``canvas.angle``; strokes no thinner than ``canvas.hair``; light from ``canvas.light``; strength from
``canvas.depth(spec.strength)``, geometry never from the strength. ``Layer.rgb`` is linear light, best got
from ``canvas.base`` by factors (``canvas.shaded``) so that the photo's texture stays visible. Sharpness, noise
and grey photos are seen to by ``canvas.paste``. Helpers: strokes.py (lines), streams.py (noise), shapes.py
(outlines), shading.py (relief under the light), fill.py (surface from its surroundings).
Then register it in ``RECIPES`` with its habit; sizes are in ``spec.SIZE_RANGES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mcp_servers.image_gen.local.canvas import Canvas, Layer
from mcp_servers.image_gen.local.families import breaks, colour, deposits, holes, lines, parts, relief, thread, traces
from mcp_servers.image_gen.local.families.scan import as_scanned
from mcp_servers.image_gen.local.place import Habit
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import Streams
from mcp_servers.knowledge.families import Family


@dataclass(frozen=True, slots=True)
class Recipe:
    """A family's drawing function, where it sits (see place.Habit), and whether it ends at the outline."""

    draw: Callable[[Canvas, DefectSpec, Streams], Layer]
    habit: Habit = "inside"
    stays_on_part: bool = True


RECIPES: dict[Family, Recipe] = {
    Family.SCRATCH: Recipe(lines.scratch, "line"),
    Family.CRACK: Recipe(lines.crack, "line", stays_on_part=False),
    Family.CUT: Recipe(lines.cut, "line"),
    Family.HOLE: Recipe(holes.hole),
    Family.DENT: Recipe(relief.dent),
    Family.FOLD: Recipe(relief.fold, "line"),
    Family.FRAY: Recipe(relief.fray),
    Family.STAIN: Recipe(colour.stain),
    Family.DISCOLORATION: Recipe(colour.discoloration),
    Family.RUST: Recipe(colour.rust),
    Family.BURN: Recipe(colour.burn),
    Family.CONTAMINATION: Recipe(deposits.contamination),
    Family.GLUE: Recipe(deposits.glue),
    Family.PRINT: Recipe(deposits.misprint),
    Family.THREAD: Recipe(thread.thread),
    Family.MISSING: Recipe(parts.missing, stays_on_part=False),
    Family.BROKEN_EDGE: Recipe(breaks.broken_edge, "outline", stays_on_part=False),
    Family.BEND: Recipe(parts.bend, "outline", stays_on_part=False),
    Family.MISPLACED: Recipe(parts.misplaced),
    Family.SHORT: Recipe(traces.short),
    Family.OPEN: Recipe(traces.open_gap),
}

FAMILIES = {family: replace(recipe, draw=as_scanned(recipe.draw)) for family, recipe in RECIPES.items()}
"""Every family that can be drawn."""
