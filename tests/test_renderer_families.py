"""How the renderer's colour, deposit, part and trace families look, measured on small synthetic photos."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mcp_servers.errors import RegionError
from mcp_servers.image_gen.local import Rendering, render
from mcp_servers.knowledge.families import SEVERITIES, SIZES, Family

Photo = NDArray[np.uint8]

NOUNS = {
    Family.STAIN: "a water stain",
    Family.DISCOLORATION: "a discoloration",
    Family.RUST: "a patch of rust",
    Family.BURN: "a burn mark",
    Family.CONTAMINATION: "a piece of contamination",
    Family.GLUE: "a drop of glue",
    Family.PRINT: "a misprint",
    Family.THREAD: "a loose thread",
    Family.MISSING: "a missing piece",
    Family.BROKEN_EDGE: "a chipped edge",
    Family.BEND: "a bent section",
    Family.MISPLACED: "a misplaced piece",
    Family.SHORT: "a solder bridge",
    Family.OPEN: "an open circuit",
}
ON_TRACES = {Family.SHORT, Family.OPEN}
GREY = (1.0, 1.0, 1.0)
BACKGROUND = np.array([206, 212, 220])


def surface(size: int = 160, level: float = 135, tint: tuple[float, ...] = (1.05, 0.95, 0.8)) -> Photo:
    """A lit surface with fine texture that fills the picture."""
    rng = np.random.default_rng(8)
    noise = [
        cv2.GaussianBlur(rng.normal(0, 1, (size, size)).astype(np.float32), (0, 0), s) * s * 14 for s in (0.8, 2.0)
    ]
    light = level + np.linspace(14, -14, size, dtype=np.float32)[:, None] + noise[0] + noise[1]
    return np.clip(light[..., None] * np.array(tint), 0, 255).astype(np.uint8)


def plate(size: int = 192, tint: tuple[float, ...] = (1.05, 0.95, 0.8)) -> Photo:
    """A square plate on a plain background."""
    mask = np.zeros((size, size), np.float32)
    mask[size // 5 : -size // 5, size // 5 : -size // 5] = 1
    mask = cv2.GaussianBlur(mask, (0, 0), 0.8)[..., None]
    paper = np.random.default_rng(9).normal(0, 1.2, (size, size, 1)) + BACKGROUND
    return np.rint(mask * surface(size, 110, tint) + (1 - mask) * paper).astype(np.uint8)


def board(size: int = 160, tint: tuple[float, ...] = (0.7, 1.0, 0.5)) -> Photo:
    """Bright conductors on a dark board, at least one in every window."""
    on = (np.arange(size) % (size // 11) < size // 30).astype(np.float32)
    lines = 55 + 130 * cv2.GaussianBlur(np.repeat(on[None, :], size, 0), (0, 0), 0.7)
    lines += np.random.default_rng(2).normal(0, 1.5, (size, size))
    return np.clip(lines[..., None] * np.array(tint), 0, 255).astype(np.uint8)


def labelled(size: int = 192, tint: tuple[float, ...] = (1.05, 0.95, 0.8)) -> Photo:
    """The plate with dark labels on it."""
    photo = plate(size, tint).astype(np.float32)
    mask = np.zeros((size, size), np.float32)
    for x in (0.30, 0.52):
        for y in (0.32, 0.55):
            mask[round(y * size) : round((y + 0.12) * size), round(x * size) : round((x + 0.15) * size)] = 1
    return np.rint(photo * (1 - 0.65 * cv2.GaussianBlur(mask, (0, 0), 0.8)[..., None])).astype(np.uint8)


def photo_for(family: Family) -> Photo:
    return board() if family in ON_TRACES else labelled() if family is Family.MISPLACED else plate()


def drawn(photo: Photo, family: Family, size: str = "large", severity: str = "pronounced", seed: int = 3) -> Rendering:
    return render(photo, f"{NOUNS[family]}. The defect is {size} and {severity}.", seed)


def change(photo: Photo, result: Rendering) -> NDArray[np.float32]:
    """(H, W) mean absolute change over the channels."""
    return np.asarray(np.abs(result.rgb - photo).mean(2), np.float32)


@pytest.mark.parametrize("family", NOUNS)
def test_it_changes_the_part_visibly_and_nothing_outside_alpha(family: Family) -> None:
    photo = photo_for(family)
    for seed in range(2):
        result = drawn(photo, family, seed=seed)
        assert result.spec.family is family
        outside = result.alpha == 0
        assert np.array_equal(result.rgb[outside], photo[outside].astype(np.float32))
        assert change(photo, result).max() > 12
        assert (result.alpha > 0.5).any()


@pytest.mark.parametrize("family", NOUNS)
def test_same_words_and_seed_same_bytes(family: Family) -> None:
    first, second = drawn(photo_for(family), family), drawn(photo_for(family), family)
    assert first.rgb.tobytes() == second.rgb.tobytes()
    assert first.alpha.tobytes() == second.alpha.tobytes()


@pytest.mark.parametrize("family", NOUNS)
def test_severity_words_are_monotone(family: Family) -> None:
    photo = photo_for(family)
    sums = [float(change(photo, drawn(photo, family, severity=word, seed=4)).sum()) for word in SEVERITIES]
    assert sums == sorted(sums)
    assert sums[-1] > 1.25 * sums[0] > 0


@pytest.mark.parametrize("family", [f for f in NOUNS if f is not Family.MISPLACED])
def test_size_words_are_monotone(family: Family) -> None:
    photo = photo_for(family)
    areas = [
        sum(int((drawn(photo, family, size=word, seed=seed).alpha > 0.25).sum()) for seed in range(2))
        for word in SIZES[::2]
    ]
    assert areas == sorted(areas)
    assert areas[-1] > 1.5 * areas[0]


@pytest.mark.parametrize("family", NOUNS)
def test_grey_stays_grey(family: Family) -> None:
    photo = board(tint=GREY) if family in ON_TRACES else labelled(tint=GREY)
    photo = np.repeat(photo[..., 1:2], 3, 2)
    result = drawn(photo, family)
    assert np.array_equal(result.rgb[..., 0], result.rgb[..., 1])
    assert np.array_equal(result.rgb[..., 1], result.rgb[..., 2])


@pytest.mark.parametrize("family", [Family.STAIN, Family.DISCOLORATION])
def test_the_texture_shows_through(family: Family) -> None:
    photo = surface()
    result = drawn(photo, family, severity="moderate")
    inside = cv2.erode((result.alpha > 0.9).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    before, after = (np.log(image.mean(2) + 1) for image in (photo.astype(np.float32), result.rgb))
    fine = [image - cv2.GaussianBlur(image, (0, 0), 2.0) for image in (before, after)]
    assert np.corrcoef(fine[0][inside], fine[1][inside])[0, 1] > 0.75


@pytest.mark.parametrize(
    ("words", "strong", "weak"),
    [("a red ink mark", 0, 1), ("a blue ink mark", 2, 0), ("a green stain", 1, 0), ("a yellow discoloration", 0, 2)],
)
def test_a_named_colour_shows(words: str, strong: int, weak: int) -> None:
    photo = surface(tint=GREY)
    result = render(photo, f"{words}. The defect is large and pronounced.", seed=2)
    inside = result.alpha > 0.6
    assert (result.rgb[..., strong] - result.rgb[..., weak])[inside].mean() > 12


def test_rust_is_brown_and_burn_is_darker_in_the_middle() -> None:
    photo = surface(level=150, tint=GREY)
    photo[..., 2] = np.maximum(photo[..., 2], 2) - 1  # not a grey camera
    rust = drawn(photo, Family.RUST)
    r, g, b = (rust.rgb[..., c][rust.alpha > 0.8].mean() for c in range(3))
    assert r > g + 8 > b + 8
    burn = drawn(photo, Family.BURN, severity="severe")
    deep, fringe = burn.alpha > 0, (burn.alpha > 0.1) & (change(photo, burn) < 25)
    assert np.percentile(burn.rgb[deep], 2) < 40
    assert burn.rgb[..., 0][fringe].mean() > burn.rgb[..., 2][fringe].mean()


def test_a_grain_has_a_lit_side_and_a_shadow_away_from_the_lamp() -> None:
    ramp = np.linspace(170, 100, 160, dtype=np.float32)[None, :, None] * np.ones((160, 1, 3), np.float32)
    photo = np.rint(ramp).astype(np.uint8)  # the lamp is on the left
    offsets = []
    for seed in range(4):
        result = render(photo, "a black piece of contamination. The defect is very large and severe.", seed)
        dark = np.clip(photo - result.rgb, 0, None).mean(2)
        body, shadow = dark > 70, (dark > 4) & (dark < 45)
        offsets.append(np.nonzero(shadow)[1].mean() - np.nonzero(body)[1].mean())
    assert np.mean(offsets) > 0


def test_glue_carries_a_highlight() -> None:
    photo = surface(level=90)
    brighter = [float((drawn(photo, Family.GLUE, severity="severe", seed=s).rgb - photo).max()) for s in range(4)]
    assert min(brighter) > 15


@pytest.mark.parametrize("family", [Family.BROKEN_EDGE, Family.MISSING])
def test_the_background_shows_where_a_piece_of_the_outline_is_gone(family: Family) -> None:
    photo = plate()
    result = render(photo, f"{NOUNS[family]} on the edge. The defect is large and severe.", seed=1)
    inside = np.zeros(photo.shape[:2], bool)
    inside[41:-41, 41:-41] = True
    like_background = np.abs(result.rgb - BACKGROUND).max(2) < 10
    assert (like_background & inside).sum() > 60
    assert not (np.abs(photo[inside].astype(float) - BACKGROUND).max(1) < 10).any()


def test_a_chip_on_a_close_up_needs_an_edge_in_view() -> None:
    photo = surface()
    with pytest.raises(RegionError, match="outline"):
        drawn(photo, Family.BROKEN_EDGE)
    photo[:, :3] //= 5  # a dark margin: the part ends there
    for seed in range(3):
        assert drawn(photo, Family.BROKEN_EDGE, seed=seed).box[0] <= 2


def test_a_chip_takes_the_outer_outline_not_a_bore() -> None:
    photo = plate()
    ys, xs = np.mgrid[0:192, 0:192]
    photo[np.hypot(xs - 96, ys - 96) < 16] = BACKGROUND
    for family in (Family.BROKEN_EDGE, Family.MISSING):
        for seed in range(4):
            x, y, w, h = drawn(photo, family, "small", seed=seed).box
            assert min(x, y, 192 - x - w, 192 - y - h) < 44


def test_a_part_without_separate_elements_has_nothing_to_misplace() -> None:
    with pytest.raises(RegionError, match="no separate element to misplace; set region"):
        drawn(plate(), Family.MISPLACED)


def test_the_size_varies_with_the_seed_alike_for_every_word() -> None:
    photo = surface(256)
    small, large = (
        np.array([drawn(photo, Family.DISCOLORATION, size=word, seed=s).box[2:] for s in range(6)]).max(1)
        for word in ("small", "medium-sized")
    )
    assert small.max() > 1.25 * small.min()
    assert (large > small).all()


def test_a_missing_piece_on_a_texture_is_a_recess_with_a_shaded_step() -> None:
    photo = surface()
    result = drawn(photo, Family.MISSING, severity="severe")
    inside = result.alpha > 0.9
    ratio = result.rgb[inside].mean(1) / photo[inside].mean(1)
    assert np.percentile(ratio, 5) < 0.5
    assert abs(float(np.median(ratio)) - 1) > 0.04


def test_a_wide_crack_right_through_a_part_shows_what_lies_behind() -> None:
    photo = plate()
    words = "Using the provided image, change only the whole width of the plate to introduce a wide crack. "
    result = render(photo, words + "The defect is large and severe.", 3)
    on_part = np.abs(photo - BACKGROUND).max(2) > 60
    through = (np.abs(result.rgb - BACKGROUND).max(2) < 45) & on_part
    ys, xs = np.nonzero(through)
    assert through.sum() > 150
    assert max(np.ptp(ys), np.ptp(xs)) > 0.4 * len(photo)


def test_a_hole_in_leather_is_torn_and_in_metal_it_is_not() -> None:
    photo = surface(192)
    solid = []
    for material in ("leather", "steel"):
        dark = []
        for seed in range(8):
            words = f"A hole in the {material}. The defect is large and severe."
            result = render(photo, words, seed)
            core = ((photo - result.rgb).mean(2) > 50).astype(np.uint8)
            hull = cv2.convexHull(np.argwhere(core > 0).astype(np.int32))
            dark.append(core.sum() / max(cv2.contourArea(hull), 1))
        solid.append(float(np.median(dark)))
    assert solid[0] < 0.8 * solid[1]


def test_rust_over_the_whole_part_covers_it_and_not_the_background() -> None:
    photo = plate()
    words = "Using the provided image, change only the whole plate surface to introduce rust. "
    result = render(photo, words + "The defect is very large and severe.", 3)
    part = cv2.erode((np.abs(photo - BACKGROUND).max(2) > 60).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    far = cv2.dilate((np.abs(photo - BACKGROUND).max(2) > 30).astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    assert (result.alpha[part] > 0.5).mean() > 0.9
    assert not result.alpha[far].any()


@pytest.mark.parametrize("family", [f for f in NOUNS if f not in ON_TRACES | {Family.MISPLACED, Family.BROKEN_EDGE}])
def test_a_black_and_white_scan_stays_black_and_white(family: Family) -> None:
    lines = (np.arange(160) % 32 < 12).astype(np.uint8) * 255
    photo = np.repeat(np.repeat(lines[None, :], 160, 0)[..., None], 3, 2)
    result = drawn(photo, family)
    grey = (result.rgb[..., 1] > 60) & (result.rgb[..., 1] < 195)
    assert change(photo, result).max() > 200
    assert grey.sum() < 0.5 * (result.alpha > 0).sum()  # borders only


def test_wet_ink_is_saturated_and_carries_highlights() -> None:
    photo = np.clip(surface(192, 200).astype(np.float32) * 0.1 + 180, 0, 255).astype(np.uint8)
    results = [
        render(photo, "A red ink stain on the glossy surface. The defect is large and severe.", s) for s in range(6)
    ]
    inked = [r.rgb[r.alpha > 0.9] for r in results]
    assert all(np.median(pixels[:, 0] - pixels[:, 1]) > 90 for pixels in inked)
    assert sum(bool((pixels.min(1) > 170).any()) for pixels in inked) >= 2


def test_a_bend_moves_the_outline() -> None:
    photo = plate()
    result = drawn(photo, Family.BEND, severity="severe")
    was = np.abs(photo - BACKGROUND).max(2) < 40
    now = np.abs(result.rgb - BACKGROUND).max(2) < 40
    assert (was != now).sum() > 30


def test_a_bridge_joins_conductors_and_a_gap_parts_one() -> None:
    photo = board()
    pieces = [
        sum(
            area > 30
            for area in cv2.connectedComponentsWithStats((green > 120).astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]
        )
        for green in (
            photo[..., 1],
            drawn(photo, Family.SHORT, severity="severe").rgb[..., 1],
            drawn(photo, Family.OPEN, severity="severe").rgb[..., 1],
        )
    ]
    assert pieces[1] == pieces[0] - 1
    assert pieces[2] == pieces[0] + 1


@pytest.mark.parametrize("family", sorted(ON_TRACES))
def test_without_a_conductor_it_is_refused_with_the_cure(family: Family) -> None:
    with pytest.raises(RegionError, match="region around a trace"):
        drawn(surface(), family)


@pytest.mark.parametrize("family", NOUNS)
def test_tiny_and_huge_photos(family: Family) -> None:
    for width, height in ((64, 48), (900, 600)):
        photo = cv2.resize(photo_for(family), (width, height), interpolation=cv2.INTER_AREA)
        result = drawn(photo, family, size="very large")
        assert (result.alpha > 0).any()
        assert np.isfinite(result.rgb).all()


def test_a_common_photo_takes_a_moment() -> None:
    photo = cv2.resize(labelled(), (512, 512), interpolation=cv2.INTER_CUBIC)
    drawn(photo, Family.RUST)
    for family in (Family.RUST, Family.CONTAMINATION, Family.BROKEN_EDGE, Family.MISPLACED):
        started = time.process_time()
        drawn(photo, family)
        assert time.process_time() - started < 1.5  # usually 0.1 to 0.3 s
