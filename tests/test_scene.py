"""What a photo shows of the part, its light, noise, blur and grain, on photos whose truth is known."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from mcp_servers.vision.part import find_part
from mcp_servers.vision.scene import analyse, grain_of, grey
from mcp_servers.vision.types import Field, Image, Mask

DATA = Path(os.environ.get("ANOMALY_AGENT_DATA", Path(__file__).parents[2] / "shared" / "data"))
SIDE = 300


def noise(seed: int, sigma: float = 0.0) -> Field:
    values = np.random.default_rng(seed).normal(0, 1, (SIDE, SIDE)).astype(np.float32)
    values = cv2.GaussianBlur(values, (0, 0), sigma) if sigma else values
    return np.asarray(values / values.std(), np.float32)


def disc(x: float, y: float, radius: float) -> Mask:
    ys, xs = np.mgrid[0:SIDE, 0:SIDE]
    return np.asarray((xs - x) ** 2 + (ys - y) ** 2 <= radius**2)


def as_photo(picture: np.ndarray, blur: float = 0.8) -> Image:
    soft = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), blur)
    return np.clip(soft + noise(9)[..., None], 0, 255).astype(np.uint8)


def overlap(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / (a | b).sum())


def part_on(background: tuple[int, int, int], colour: tuple[int, int, int], where: Mask) -> np.ndarray:
    picture = np.full((SIDE, SIDE, 3), background, np.float32)
    picture[where] = np.array(colour, np.float32) + 6 * noise(1, 2.0)[where][:, None]
    return picture


def test_a_part_on_a_plain_background_is_outlined() -> None:
    truth = disc(150, 140, 80)
    scene = analyse(as_photo(part_on((40, 40, 45), (170, 150, 120), truth)))
    assert scene.kind == "object"
    assert overlap(scene.part, truth) > 0.95
    x, y, width, height = scene.box
    assert (x, y) == pytest.approx((70, 60), abs=4)
    assert (width, height) == pytest.approx((161, 161), abs=8)
    assert scene.extent == pytest.approx(np.sqrt(np.pi) * 80, rel=0.03)


def test_a_cast_shadow_on_a_coloured_background_is_not_part() -> None:
    truth, shadow = disc(140, 140, 70), disc(175, 160, 70)
    picture = part_on((215, 205, 70), (190, 175, 140), truth)
    picture[shadow & ~truth] *= 0.62
    scene = analyse(as_photo(picture, 1.5))
    assert overlap(scene.part, truth) > 0.85


def test_a_coloured_part_is_outlined_on_ground_that_is_lit_from_one_side() -> None:
    truth = disc(150, 150, 70)
    picture = part_on((90, 90, 92), (190, 150, 90), truth)
    picture *= np.linspace(0.45, 1.9, SIDE, dtype=np.float32)[None, :, None] ** (~truth)[..., None]
    scene = analyse(as_photo(picture))
    assert scene.kind == "object"
    assert overlap(scene.part, truth) > 0.9


def test_dark_ground_beside_a_part_is_not_taken_with_it() -> None:
    truth = disc(150, 170, 75)
    picture = part_on((75, 75, 72), (200, 160, 95), truth)
    picture[:110, 120:190] *= 0.55
    picture[truth] = part_on((75, 75, 72), (200, 160, 95), truth)[truth]
    assert overlap(analyse(as_photo(picture)).part, truth) > 0.93


def test_a_surface_that_fills_the_photo_is_a_texture() -> None:
    picture = np.repeat((120 + 12 * noise(2, 1.5))[..., None], 3, axis=2)
    scene = analyse(as_photo(picture))
    assert scene.kind == "texture"
    assert scene.part.all()


def test_a_highlight_on_a_shaded_surface_is_not_taken_for_a_part() -> None:
    ys, xs = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    bands = 90 + 45 * np.sin((xs + 0.6 * ys) / 22) + 8 * noise(3, 1.5)
    bands += 150 * np.exp(-(((xs - 210) / 50) ** 2 + ((ys - 110) / 40) ** 2))
    assert analyse(as_photo(np.repeat(bands[..., None], 3, axis=2))).kind == "texture"


def test_printed_traces_that_leave_the_photo_are_no_part() -> None:
    picture = np.full((SIDE, SIDE, 3), 240, np.float32)
    for y in range(20, SIDE, 60):
        picture[y : y + 18] = 30
    assert find_part(as_photo(picture)).all()


def test_light_comes_from_where_the_surface_gets_brighter() -> None:
    ys, xs = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    scene = analyse(as_photo(np.repeat((60 + 0.4 * xs + 0 * ys)[..., None], 3, axis=2)))
    assert scene.light[0] > 0.8
    assert scene.light_confidence > 0.5
    assert np.hypot(*scene.light) == pytest.approx(1.0)


def test_noise_is_measured_in_grey_levels() -> None:
    flat = np.full((SIDE, SIDE), 120, np.float32)
    for sigma in (1.0, 4.0):
        photo = np.clip(np.repeat((flat + sigma * noise(4))[..., None], 3, axis=2), 0, 255).astype(np.uint8)
        assert analyse(photo).noise == pytest.approx(sigma, rel=0.25, abs=0.3)


def test_a_softer_photo_reports_a_wider_blur() -> None:
    picture = part_on((40, 40, 45), (170, 150, 120), disc(150, 140, 80))
    sharp, soft = analyse(as_photo(picture, 0.6)).blur, analyse(as_photo(picture, 2.5)).blur
    assert sharp < 1.2
    assert soft == pytest.approx(2.5, rel=0.4)


def test_a_pixel_sharp_texture_without_edges_is_not_called_soft() -> None:
    fine, soft = (120 + 12 * noise(3, sigma) for sigma in (0.0, 2.0))
    sharp, blurred = (analyse(np.repeat(t[..., None], 3, axis=2).astype(np.uint8)).blur for t in (fine, soft))
    assert sharp < 0.6 < 1.0 < blurred


@pytest.mark.parametrize("angle", [0, 35, 90, 140])
def test_grain_runs_along_the_lines(angle: int) -> None:
    ys, xs = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    across = xs * np.sin(np.radians(angle)) + ys * np.cos(np.radians(angle))
    photo = as_photo(np.repeat((120 + 30 * np.sin(across / 3))[..., None], 3, axis=2))
    found = grain_of(grey(photo), np.ones((SIDE, SIDE), bool))
    assert found.coherence > 0.35
    assert min(abs(found.angle_deg - angle), 180 - abs(found.angle_deg - angle)) < 6


def test_the_part_is_reported_at_the_photo_s_own_size() -> None:
    photo = cv2.resize(as_photo(part_on((40, 40, 45), (170, 150, 120), disc(150, 140, 80))), (900, 600))
    scene = analyse(photo)
    assert scene.part.shape == (600, 900)
    assert scene.part[280, 450]
    assert not scene.part[20, 20]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no inspection photos at {DATA}; set ANOMALY_AGENT_DATA")
@pytest.mark.parametrize(
    ("category", "kind"),
    [
        ("cookie", "object"),
        ("metal_plate", "object"),
        ("hazelnut_toy", "object"),
        ("ball_screw", "texture"),
        ("leather_patch", "texture"),
        ("magnetic_tile", "texture"),
    ],
)
def test_real_photos_are_told_apart_into_objects_and_textures(category: str, kind: str) -> None:
    files = sorted((DATA / category / "train" / "good").glob("*.png"))[:12]
    kinds = [analyse(cv2.imread(str(f), cv2.IMREAD_COLOR_RGB)).kind for f in files]
    assert kinds.count(kind) >= 0.9 * len(kinds)
