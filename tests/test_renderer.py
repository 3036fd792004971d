"""The local renderer: what it reads in a prompt, and what it promises about the picture it returns."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mcp_servers.image_gen.local import PromptNotUnderstood, RegionError, parse_prompt, render
from mcp_servers.image_gen.local.families import FAMILIES
from mcp_servers.knowledge.families import SEVERITIES, SIZES, Family

NOUNS = {
    Family.SCRATCH: "a scratch",
    Family.CRACK: "a crack",
    Family.CUT: "a cut",
    Family.HOLE: "a hole",
    Family.DENT: "a dent",
    Family.FOLD: "a fold",
    Family.FRAY: "a frayed patch",
    Family.STAIN: "a stain",
    Family.CONTAMINATION: "a piece of contamination",
    Family.DISCOLORATION: "a discoloration",
    Family.RUST: "a patch of rust",
    Family.BURN: "a burn",
    Family.GLUE: "a strip of glue",
    Family.PRINT: "a misprint",
    Family.THREAD: "a loose thread",
    Family.MISSING: "a missing part",
    Family.BROKEN_EDGE: "a chipped edge",
    Family.BEND: "a bent section",
    Family.MISPLACED: "a misplaced piece",
    Family.SHORT: "a short circuit",
    Family.OPEN: "an open circuit",
}


def surface(size: int = 128, seed: int = 1, grey: bool = False) -> np.ndarray:
    """A lit, textured surface that fills the picture."""
    rng = np.random.default_rng(seed)
    texture = sum(
        cv2.GaussianBlur(rng.normal(0, 1, (size, size)).astype(np.float32), (0, 0), s) * s * 6 for s in (0.8, 2, 5)
    )
    shade = 132 + np.linspace(18, -18, size, dtype=np.float32)[:, None] + np.asarray(texture, np.float32)
    colour = np.ones(3) if grey else np.array([1.05, 0.95, 0.80])
    return np.clip(shade[..., None] * colour, 0, 255).astype(np.uint8)


def part(size: int = 192, grey: bool = False) -> np.ndarray:
    """A disc of textured material on a plain background."""
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32)
    disc = np.clip(0.33 * size - np.hypot(xs - size / 2, ys - size / 2) + 0.5, 0, 1)[..., None]
    rng = np.random.default_rng(3)
    background = np.clip(rng.normal(225, 1.5, (size, size, 1)), 0, 255) * np.ones(3)
    return np.rint(disc * surface(size, grey=grey) + (1 - disc) * background).astype(np.uint8)


def traces(size: int = 128, grey: bool = False) -> np.ndarray:
    """Bright conductors, side by side, on a dark board."""
    rng = np.random.default_rng(5)
    period, width = size // 8, size // 20
    on = (np.arange(size) % period < width).astype(np.float32)
    board = 60 + 120 * cv2.GaussianBlur(np.repeat(on[None, :], size, 0), (0, 0), 0.7)
    board += rng.normal(0, 1.5, (size, size))
    return np.clip(board[..., None] * (np.ones(3) if grey else np.array([0.9, 1.0, 0.6])), 0, 255).astype(np.uint8)


def labelled(size: int, grey: bool) -> np.ndarray:
    """The disc with small dark labels on it, one of them at (0.7, 0.4) of the size."""
    photo = part(size, grey)
    for x, y in ((0.38, 0.38), (0.68, 0.38), (0.50, 0.62)):
        left, top, side = round(x * size), round(y * size), round(0.09 * size)
        photo[top : top + side, left - side // 2 : left + side // 2 + 1] //= 3
    return photo


def photo_for(family: Family, size: int, grey: bool = False) -> np.ndarray:
    """A photo on which the family can be found."""
    if family in {Family.SHORT, Family.OPEN}:
        return traces(size, grey)
    if family is Family.MISPLACED:
        return labelled(size, grey)
    return part(size, grey)


def framed(noun: str, size: str = "medium-sized", severity: str = "pronounced", place: str = "the surface") -> str:
    return (
        f"Using the provided image, change only {place} to introduce {noun}. The defect is {size} and {severity}. "
        "Everything else, the background and every edge, stays exactly as it is."
    )


def strength(photo: np.ndarray, rgb: np.ndarray) -> float:
    return float(np.abs(rgb - photo).mean())


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (
            "Using the provided image, change only the rim of the bottle mouth to introduce a hairline crack running "
            "diagonally. The defect is small and pronounced. Everything else stays exactly as it is.",
            {"family": Family.CRACK, "size": "small", "severity": "pronounced", "place": {"edge"},
             "shapes": {"hairline"}, "orientation": "diagonal"},
        ),
        ("a tiny faint scratch", {"family": Family.SCRATCH, "size": "tiny", "severity": "faint", "place": set()}),
        ("a scratch near the edge", {"place": {"near_edge"}}),
        ("a scratch on the upper left corner", {"place": {"upper", "left", "corner"}}),
        ("a hole in the centre of the plate", {"family": Family.HOLE, "place": {"centre"}}),
        ("a crack with jagged edges", {"place": set(), "shapes": {"jagged"}}),
        ("a horizontal scratch", {"orientation": "angle", "degrees": 0.0}),
        ("a vertical crack", {"orientation": "angle", "degrees": 90.0}),
        ("a scratch at 30 degrees", {"orientation": "angle", "degrees": 30.0}),
        ("a scratch across the grain", {"orientation": "across"}),
        ("a scratch along the wood grain", {"orientation": "along"}),
        ("two round holes", {"count": 2, "shapes": {"round"}}),
        ("three scratches", {"count": 3}),
        ("several stains", {"count": 4}),
        ("a single crack", {"count": 1}),
        ("a cluster of pinholes", {"count": 6, "clustered": True}),
        ("a stain", {"count": 1, "colour": None, "size": "medium-sized", "severity": "moderate"}),
        ("a very large and severe stain", {"size": "very large", "severity": "severe"}),
        ("a patch of pitting", {"family": Family.HOLE, "shapes": {"pitted"}, "count": 1}),
        ("a cluster of pitting holes", {"shapes": {"pitted"}, "count": 1, "clustered": False}),
        (
            "Using the provided image, change only the whole width of the tile to introduce a wide crack.",
            {"place": {"whole"}, "shapes": {"wide"}},
        ),
        (
            "Using the provided image, change only the inner wall and dark interior of the jar to introduce a stain.",
            {"place": {"interior", "surface"}},
        ),
        (
            "Using the provided image, change only the top surface of the disc to introduce a stain.",
            {"place": {"surface"}},
        ),
        (
            "Using the provided image, change only the edge and the surface of the part to introduce a stain.",
            {"place": {"surface"}},
        ),
        ("a crack running along the rim", {"orientation": "rim", "place": {"edge"}}),
        ("a branching curved crack", {"shapes": {"branching", "curved"}}),
    ],
)  # fmt: skip
def test_a_prompt_is_read(prompt: str, expected: dict[str, object]) -> None:
    spec = parse_prompt(prompt)
    for key, value in expected.items():
        found = getattr(spec, key, None)
        if key == "orientation":
            assert spec.orientation is not None
            found = spec.orientation.kind
        elif key == "degrees":
            assert spec.orientation is not None
            found = spec.orientation.degrees
        assert found == value, (key, found, value)


@pytest.mark.parametrize(
    "colour",
    [
        *("black", "gray", "silver", "white-ish", "whitish", "cream", "beige", "tan", "amber", "yellow", "gold"),
        *("orange", "copper", "brown", "maroon", "red", "pink", "magenta", "purple", "violet", "blue", "navy"),
        *("cyan", "turquoise", "teal", "green", "olive", "dark"),
    ],
)
def test_plain_colours_are_known(colour: str) -> None:
    spec = parse_prompt(f"a {colour} stain on the surface")
    assert spec.colour is not None
    assert spec.colour_name == colour


def test_colours_combine() -> None:
    reddish_brown = parse_prompt("a reddish brown stain").colour
    brown = parse_prompt("a brown stain").colour
    dark_green, green = parse_prompt("a dark green stain").colour, parse_prompt("a green stain").colour
    assert reddish_brown is not None
    assert brown is not None
    assert reddish_brown[0] > brown[0]
    assert dark_green is not None
    assert green is not None
    assert sum(dark_green) < sum(green)


def test_a_choice_of_colours_is_left_to_the_seed() -> None:
    photo, prompt = surface(96), framed("a stain, red, green or blue in colour", "large")
    chosen = {render(photo, prompt, seed=seed).spec.colour_name for seed in range(12)}
    assert chosen == {"red", "green", "blue"}
    assert [name for name, _ in parse_prompt("a stain of any colour").colours][:1] == ["red"]


def test_colours_of_something_else_are_no_choice() -> None:
    assert [name for name, _ in parse_prompt("a red stain beside the blue label or cap").colours] == ["red"]


def test_the_closing_clause_is_not_read() -> None:
    prompt = "a scratch on the surface; everything else, including the red holes on the left, stays as it is"
    spec = parse_prompt(prompt)
    assert (spec.family, spec.colour, spec.count) == (Family.SCRATCH, None, 1)
    assert "left" not in spec.place


def test_sentences_on_material_and_light_are_not_read() -> None:
    spec = parse_prompt(
        "Using the provided image, change only the surface to introduce a scratch, silvery in colour, running across "
        "the vertical grain. The defect is large and mild in strength. The scratch ploughs through the red coating. "
        "The surface is bright with light from the upper left, so it shows a dark jagged shadow. Its border blends "
        "softly into the texture. Everything else stays as it is."
    )
    assert (spec.colour_name, spec.shapes, spec.place) == ("silvery", {"soft"}, {"surface"})
    assert spec.orientation is not None
    assert spec.orientation.kind == "across"


def test_a_material_is_not_a_colour() -> None:
    assert parse_prompt("a patch of rust").colour is None
    assert parse_prompt("a patch of rust, reddish brown in colour").colour_name == "reddish brown"


def test_ladders_grow() -> None:
    specs = [parse_prompt(framed("a dent", size, severity)) for size, severity in zip(SIZES, SEVERITIES, strict=True)]
    sizes, strengths = [s.relative_size for s in specs], [s.strength for s in specs]
    assert sizes == sorted(set(sizes))
    assert strengths == sorted(set(strengths))
    assert [s.size for s in specs] == list(SIZES)
    assert [s.severity for s in specs] == list(SEVERITIES)


@pytest.mark.parametrize("prompt", ["", "make it nicer", "Using the provided image, change only the sky to add joy."])
def test_a_prompt_without_a_defect_is_refused_with_the_cure(prompt: str) -> None:
    with pytest.raises(PromptNotUnderstood, match="scratch, crack") as error:
        parse_prompt(prompt)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [128, 512])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_changes_a_part_and_nothing_else(family: Family, size: int) -> None:
    photo = photo_for(family, size)
    result = render(photo, framed(NOUNS[family], "large"), seed=4)
    assert result.spec.family is family
    assert result.rgb.dtype == np.float32
    assert result.rgb.shape == photo.shape
    assert result.alpha.dtype == np.float32
    assert np.isfinite(result.rgb).all()
    assert result.rgb.min() >= 0
    assert result.rgb.max() <= 255
    assert result.alpha.min() >= 0
    assert result.alpha.max() <= 1
    outside = result.alpha == 0
    assert np.array_equal(result.rgb[outside], photo[outside].astype(np.float32))
    assert np.abs(result.rgb - photo).max() > 8
    share = float((result.alpha > 0).mean())
    assert 0 < share < 0.5
    x, y, w, h = result.box
    support = np.zeros(outside.shape, bool)
    support[y : y + h, x : x + w] = True
    assert not (result.alpha[~support] > 0).any()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_runs_on_a_grey_texture_and_leaves_it_grey(family: Family) -> None:
    elsewhere = {Family.SHORT, Family.OPEN, Family.MISPLACED, Family.BROKEN_EDGE}  # these need more than a texture
    photo = photo_for(family, 128, grey=True) if family in elsewhere else surface(128, grey=True)
    photo = np.repeat(photo[..., 1:2], 3, 2)
    result = render(photo, framed(NOUNS[family], "large"), seed=2)
    assert (result.alpha > 0).any()
    assert np.array_equal(result.rgb[..., 0], result.rgb[..., 1])
    assert np.array_equal(result.rgb[..., 1], result.rgb[..., 2])


def test_a_colour_that_is_asked_for_shows_on_a_grey_photo() -> None:
    result = render(surface(128, grey=True), framed("a red stain", "large"), seed=2)
    inside = result.alpha > 0.5
    assert (result.rgb[..., 0] - result.rgb[..., 2])[inside].mean() > 10


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_same_input_same_bytes(family: Family) -> None:
    photo, prompt = photo_for(family, 128), framed(NOUNS[family])
    first, second = render(photo, prompt, seed=11), render(photo, prompt, seed=11)
    assert first.rgb.tobytes() == second.rgb.tobytes()
    assert first.alpha.tobytes() == second.alpha.tobytes()


@pytest.mark.parametrize("family", [Family.SCRATCH, Family.HOLE, Family.STAIN])
def test_another_seed_gives_another_place(family: Family) -> None:
    photo = surface(192)
    boxes = {render(photo, framed(NOUNS[family], "small"), seed=seed).box for seed in range(6)}
    assert len(boxes) == 6


@pytest.mark.parametrize("family", [f for f in NOUNS if f in FAMILIES])
def test_stronger_words_change_more_at_the_same_place(family: Family) -> None:
    photo = photo_for(family, 128)
    results = [render(photo, framed(NOUNS[family], "large", word), seed=7) for word in SEVERITIES]
    changes = [strength(photo, r.rgb) for r in results]
    assert changes == sorted(changes)
    assert changes[0] > 0
    centres = [np.array([r.box[0] + r.box[2] / 2, r.box[1] + r.box[3] / 2]) for r in results]
    assert max(float(np.abs(c - centres[-1]).max()) for c in centres) < 12


@pytest.mark.parametrize("family", [f for f in NOUNS if f is not Family.MISPLACED])
def test_larger_words_cover_more(family: Family) -> None:
    photo = photo_for(family, 128)
    areas = [
        np.mean([(render(photo, framed(NOUNS[family], word), seed=s).alpha > 0.2).sum() for s in range(3)])
        for word in SIZES[::2]
    ]
    assert areas == sorted(set(areas))


@pytest.mark.parametrize("family", [Family.SCRATCH, Family.CUT, Family.HOLE, Family.DENT, Family.STAIN])
def test_surface_defects_stay_on_the_part(family: Family) -> None:
    photo = part(192)
    ys, xs = np.mgrid[0:192, 0:192]
    background = np.hypot(xs - 96, ys - 96) > 0.33 * 192 + 2
    for seed in range(5):
        result = render(photo, framed(NOUNS[family]), seed=seed)
        assert not (result.alpha[background] > 0).any()


def test_a_crack_on_the_rim_is_near_the_rim() -> None:
    photo = part(192)
    for seed in range(5):
        result = render(photo, framed("a crack", "small", place="the rim of the disc"), seed=seed)
        ys, xs = np.nonzero(result.alpha > 0.3)
        assert np.hypot(xs - 96, ys - 96).max() > 0.24 * 192


@pytest.mark.parametrize(
    ("words", "inside"),
    [
        ("the upper left area", lambda x, y: x < 0.5 and y < 0.5),
        ("the lower right area", lambda x, y: x > 0.5 and y > 0.5),
        ("the centre of the panel", lambda x, y: 0.2 < x < 0.8 and 0.2 < y < 0.8),
    ],
)
def test_place_words_are_followed(words: str, inside: object) -> None:
    for seed in range(4):
        x, y, w, h = render(surface(192), framed("a hole", "small", place=words), seed=seed).box
        assert callable(inside)
        assert inside((x + w / 2) / 192, (y + h / 2) / 192)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_region_is_respected(family: Family) -> None:
    photo = photo_for(family, 192)
    box = (100, 40, 70, 60)
    result = render(photo, framed(NOUNS[family]), seed=5, region=box)
    ys, xs = np.nonzero(result.alpha > 0)
    assert len(xs) > 0
    assert xs.min() >= 100
    assert xs.max() < 170
    assert ys.min() >= 40
    assert ys.max() < 100
    mask = np.zeros((192, 192), bool)
    mask[40:100, 100:170] = True
    assert render(photo, framed(NOUNS[family]), seed=5, region=mask).rgb.tobytes() == result.rgb.tobytes()


def test_a_region_without_room_is_refused_with_the_cure() -> None:
    with pytest.raises(RegionError, match="outline"):
        render(part(192), framed("a chipped edge"), 0, region=(80, 80, 32, 32))


def test_a_wrong_region_is_refused_with_the_cure() -> None:
    photo = part(192)
    prompt = framed("a hole")
    with pytest.raises(RegionError, match="192x192"):
        render(photo, prompt, 0, region=(300, 300, 10, 10))
    with pytest.raises(RegionError, match="192x192"):
        render(photo, prompt, 0, region=(10, 10, 0, 10))
    with pytest.raises(RegionError, match="empty"):
        render(photo, prompt, 0, region=np.zeros((192, 192), bool))
    with pytest.raises(RegionError, match="192x192"):
        render(photo, prompt, 0, region=np.ones((10, 10), bool))
    with pytest.raises(RegionError, match="off the part"):
        render(photo, prompt, 0, region=(0, 0, 12, 12))


def test_a_rim_on_a_texture_is_noted() -> None:
    result = render(surface(128), framed("a scratch", place="the rim"), seed=1)
    assert any("no rim found" in note for note in result.notes)


def test_a_crack_through_the_whole_part_reaches_both_sides() -> None:
    prompt = framed("a wide vertical crack", "large", place="the whole height of the disc through its centre")
    assert render(part(192), prompt, seed=2).box[3] > 0.9 * 0.66 * 192


def test_rust_over_the_whole_surface_covers_most_of_the_part() -> None:
    photo = part(192)
    whole = render(photo, framed("rust", "large", place="the whole surface of the disc"), seed=1).alpha > 0.3
    usual = render(photo, framed("rust", "large", place="the surface of the disc"), seed=1).alpha > 0.3
    area = np.pi * (0.33 * 192) ** 2
    assert whole.sum() > 0.7 * area > 1.5 * usual.sum()


def test_a_white_crack_is_lighter_than_a_dark_part() -> None:
    photo = (part(192) * 0.3).astype(np.uint8)
    result = render(photo, framed("a whitish crack", "large", place="the middle of the disc"), seed=3)
    core = result.alpha > 0.7
    assert result.rgb[core].mean() > photo[core].mean() + 10


def test_a_pinhole_in_a_conductor_lies_in_it_and_shows_the_board() -> None:
    photo = traces(256)
    result = render(photo, framed("a pinhole", "small", place="the inside of a trace"), seed=1)
    hole = result.alpha > 0.6
    assert photo[hole].mean() > 110
    assert result.rgb[hole].mean() < 100


def test_a_spot_of_copper_touches_no_conductor_and_a_bridge_joins_two() -> None:
    photo = traces(256)

    def conductors(noun: str) -> int:
        result = render(photo, framed(noun, "small", place="the gap between two traces"), seed=3)
        return int(cv2.connectedComponents((result.rgb.mean(axis=2) > 110).astype(np.uint8))[0])

    plain = int(cv2.connectedComponents((photo.mean(axis=2) > 110).astype(np.uint8))[0])
    assert conductors("an island of spurious copper") == plain + 1
    assert conductors("a copper spur") == plain
    assert conductors("a short circuit bridge") == plain - 1


def test_several_defects_are_several() -> None:
    photo = surface(256)
    result = render(photo, framed("four small round holes", "tiny"), seed=3)
    pieces, _ = cv2.connectedComponents((result.alpha > 0.3).astype(np.uint8))
    assert pieces - 1 >= 3


@pytest.mark.parametrize(
    ("words", "count"), [("12 stains", 12), ("7 small holes", 7), ("half a dozen pits", 6), ("a scratch 40 px long", 1)]
)
def test_counts_are_read_in_words_and_digits(words: str, count: int) -> None:
    assert parse_prompt(f"add {words}").count == count


def test_several_defects_keep_apart_and_say_where_there_is_no_room() -> None:
    photo = surface(256)
    result = render(photo, "a small round hole", seed=4, region=(60, 60, 90, 90), count=4)
    assert cv2.connectedComponents((result.alpha > 0.3).astype(np.uint8))[0] - 1 == 4
    crowded = render(photo, "a large round hole", seed=4, region=(60, 60, 20, 20), count=12)
    pieces = cv2.connectedComponents((crowded.alpha > 0.3).astype(np.uint8))[0] - 1
    assert pieces < 12
    assert any("of 12 drawn" in note for note in crowded.notes)


def test_a_small_and_a_huge_photo_both_work() -> None:
    for size in (24, 1600):
        result = render(surface(size), framed("a scratch"), seed=1)
        assert (result.alpha > 0).any()
