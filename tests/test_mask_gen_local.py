"""The mask of a defect from two photos: synthetic photos throughout, and a few real ones where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from mcp_servers.mask_gen.local import find_mask, widened
from mcp_servers.vision.types import Image, Mask

DATA = Path(os.environ.get("ANOMALY_AGENT_DATA", Path(__file__).parents[2] / "shared" / "data"))


def photo(side: int = 256, seed: int = 0) -> Image:
    """A textured surface with soft shading and a few landmarks."""
    rng = np.random.default_rng(seed)
    fine = cv2.GaussianBlur(rng.normal(0, 1, (side, side)).astype(np.float32), (0, 0), 1.2)
    coarse = cv2.GaussianBlur(rng.normal(0, 1, (side, side)).astype(np.float32), (0, 0), side / 16)
    luma = 130 + 9 * fine / fine.std() + 14 * coarse / coarse.std()
    picture = np.stack([luma, luma * 0.92, luma * 0.8], axis=2)
    for _ in range(12):
        x, y = (int(v) for v in rng.integers(10, side - 10, 2))
        shade = float(rng.uniform(60, 200))
        cv2.circle(picture, (x, y), int(rng.integers(3, 8)), [shade, 0.95 * shade, 0.85 * shade], -1)
    return np.clip(cv2.GaussianBlur(picture, (0, 0), 0.7), 0, 255).astype(np.uint8)


def disc(side: int, x: int, y: int, radius: int) -> Mask:
    ys, xs = np.mgrid[0:side, 0:side]
    return np.asarray((xs - x) ** 2 + (ys - y) ** 2 <= radius**2)


def darken(picture: Image, where: Mask, share: float = 0.45, feather: float = 1.0) -> Image:
    alpha = cv2.GaussianBlur(where.astype(np.float32), (0, 0), feather)[..., None]
    return np.clip(picture * (1 - alpha * (1 - share)), 0, 255).astype(np.uint8)


def redraw(picture: Image, dx: float = 0.0, dy: float = 0.0, zoom: float = 1.0) -> Image:
    """What an image editor does to everything: moves, recolours, softens and recompresses it."""
    side = picture.shape[0]
    centre = side / 2 * (1 - zoom)
    move = np.array([[zoom, 0, dx + centre], [0, zoom, dy + centre]], np.float32)
    moved = cv2.warpAffine(picture, move, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    toned = np.clip(moved * np.array([1.04, 0.98, 0.95]) + 5, 0, 255)
    soft = cv2.GaussianBlur(toned.astype(np.uint8), (0, 0), 0.6)
    _, code = cv2.imencode(".jpg", soft, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)


def overlap(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def test_an_edit_in_otherwise_identical_pixels_is_outlined_closely() -> None:
    normal, truth = photo(), disc(256, 120, 140, 18)
    result = find_mask(normal, darken(normal, truth))
    assert (result.found, result.method, result.shift) == (True, "exact", (0.0, 0.0))
    assert overlap(result.mask, truth) > 0.85
    assert result.confidence > 0.7


def test_a_dark_stroke_across_a_bright_and_a_dark_surface_is_found_on_both() -> None:
    normal = np.full((200, 400, 3), 205, np.uint8)
    normal[:, 200:] = 70
    truth = np.zeros((200, 400), bool)
    truth[90:110, 40:360] = True
    alpha = cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 0.8)[..., None]
    anomaly = np.rint(normal * (1 - alpha) + 35 * alpha).astype(np.uint8)
    mask = find_mask(normal, anomaly).mask
    for half in (np.s_[:, :200], np.s_[:, 200:]):
        assert overlap(mask[half], truth[half]) > 0.85


def test_the_faint_rim_of_a_feathered_edit_is_left_out() -> None:
    normal, truth = photo(), disc(256, 120, 140, 18)
    anomaly = darken(normal, truth, feather=4.0)
    touched = (normal != anomaly).any(axis=2)
    result = find_mask(normal, anomaly)
    assert result.mask.sum() < 0.75 * touched.sum()
    assert overlap(result.mask, truth) > 0.7


def test_what_an_editor_redrew_around_a_defect_is_left_out() -> None:
    normal, truth = photo(), disc(256, 120, 140, 12)
    redrawn = np.clip(normal + np.random.default_rng(0).normal(0, 3, normal.shape), 0, 255).astype(np.uint8)
    anomaly = np.where(disc(256, 120, 140, 30)[..., None], redrawn, normal)
    assert overlap(find_mask(normal, darken(anomaly, truth)).mask, truth) > 0.7


def test_a_hollow_edit_gives_a_filled_mask_and_small_pieces_beside_it_are_kept() -> None:
    normal = photo()
    ring = disc(256, 120, 140, 20) & ~disc(256, 120, 140, 10)
    result = find_mask(normal, darken(normal, ring | disc(256, 152, 140, 3), feather=0.6))
    assert result.mask[140, 120]
    assert result.mask[140, 152]


def test_a_thousand_pieces_are_all_found() -> None:
    normal = photo(768)
    anomaly = normal.copy()
    for row in range(3):
        for column in range(3):
            anomaly[4 + row :: 24, 4 + column :: 24] //= 3
    assert len(find_mask(normal, anomaly).boxes) > 900


def test_a_thin_line_is_one_piece_and_stays_thin() -> None:
    normal = photo()
    truth = cv2.line(np.zeros((256, 256), np.uint8), (40, 60), (200, 150), 1, 3) > 0
    result = find_mask(normal, darken(normal, truth, feather=0.6))
    assert len(result.boxes) == 1
    assert result.mask.sum() < 2.0 * truth.sum()


def test_boxes_come_biggest_first_and_hold_their_piece() -> None:
    normal = photo()
    anomaly = darken(darken(normal, disc(256, 60, 60, 8)), disc(256, 180, 190, 20))
    result = find_mask(normal, anomaly)
    assert len(result.boxes) == 2
    x, y, width, height = result.boxes[0]
    assert x <= 180 < x + width
    assert y <= 190 < y + height
    assert result.area_fraction == pytest.approx(float(result.mask.mean()))


def test_a_defect_is_found_although_the_editor_moved_and_recoloured_the_photo() -> None:
    normal, truth = photo(), disc(256, 120, 140, 16)
    anomaly = redraw(darken(normal, truth), dx=3.0, dy=-2.0, zoom=1.006)
    result = find_mask(normal, anomaly)
    assert result.method == "registered"
    assert result.shift == pytest.approx((3.0, -2.0), abs=0.5)
    assert overlap(result.mask, np.roll(truth, (-2, 3), axis=(0, 1))) > 0.7


@pytest.mark.parametrize("seed", range(4))
def test_a_redraw_without_a_defect_gives_nothing_found(seed: int) -> None:
    normal = photo(seed=seed)
    result = find_mask(normal, redraw(normal, dx=2.5, dy=1.5))
    assert not result.found
    assert not result.mask.any()
    assert result.boxes == []
    assert "No defect found" in result.note


def test_identical_photos_give_nothing_found() -> None:
    result = find_mask(photo(), photo())
    assert (result.found, result.confidence, result.area_fraction) == (False, 1.0, 0.0)


def test_a_change_below_what_an_eye_sees_is_not_a_defect() -> None:
    normal = photo()
    result = find_mask(normal, darken(normal, disc(256, 120, 140, 18), share=0.985))
    assert not result.found
    assert "too faint" in result.note


def test_clipped_black_and_white_do_not_pass_a_recoloured_photo_off_as_identical() -> None:
    traces = np.where(cv2.GaussianBlur(photo(), (0, 0), 8) > 118, 255, 0).astype(np.uint8)
    normal = cv2.GaussianBlur(traces, (0, 0), 1.0)
    recoloured = np.clip(normal * 1.2 - 12, 0, 255).astype(np.uint8)
    assert (normal == recoloured).mean() > 0.6
    assert not find_mask(normal, recoloured).found


def test_grey_photos_and_odd_sizes_are_measured_too() -> None:
    normal = np.repeat(photo()[:177, :93, :1], 3, axis=2)
    anomaly = normal.copy()
    anomaly[80:100, 40:60] //= 3
    assert overlap(find_mask(normal, anomaly).mask, (normal != anomaly).any(axis=2)) > 0.8


def test_photos_of_different_size_are_refused_with_the_cure() -> None:
    with pytest.raises(ValueError, match="resize the anomaly image"):
        find_mask(photo(64), photo(96))


@pytest.mark.parametrize(
    "broken", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.float32), np.zeros((8, 8, 3), np.uint8)]
)
def test_what_is_not_an_rgb_photo_is_refused(broken: np.ndarray) -> None:
    with pytest.raises(ValueError, match="normal image"):
        find_mask(broken, broken)


def test_a_margin_grows_the_mask_by_so_many_pixels_and_an_empty_one_stays_empty() -> None:
    mask = np.zeros((40, 50), bool)
    assert not widened(mask, 3).any()
    mask[10:20, 20:30] = True
    ys, xs = np.nonzero(widened(mask, 3))
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (7, 22, 17, 32)
    assert widened(mask, 0) is mask


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no inspection photos at {DATA}; set ANOMALY_AGENT_DATA")
def test_real_defects_are_found_against_their_inpainted_normals() -> None:
    scores = []
    for kind in ("ball_screw/pitting", "cookie/broken", "magnetic_tile/crack", "metal_plate/rust_scratch"):
        category, defect = kind.split("/")
        for truth_file in sorted((DATA / category / "ground_truth" / defect).glob("*.png"))[:3]:
            name = truth_file.name.replace("_mask", "")
            anomaly = cv2.imread(str(DATA / category / "test" / defect / name), cv2.IMREAD_COLOR_RGB)
            truth = cv2.imread(str(truth_file), cv2.IMREAD_GRAYSCALE) > 127
            normal = cv2.inpaint(anomaly, truth.astype(np.uint8), 5, cv2.INPAINT_TELEA)
            scores.append(overlap(find_mask(normal, anomaly).mask, truth))
    assert len(scores) == 12
    assert float(np.mean(scores)) > 0.85


def test_two_different_photos_are_told_apart_from_an_edited_one() -> None:
    normal = photo()
    for other in (photo(seed=5), redraw(photo(seed=6), 2.0, -1.5)):
        result = find_mask(normal, other)
        assert (result.found, result.same, result.boxes, result.confidence) == (False, False, [], 0.0)
        assert "these are not the same photo" in result.note
    edited = redraw(darken(normal, disc(256, 120, 140, 18)), 2.0, -1.5)
    assert find_mask(normal, edited).same
    wiped = normal.copy()
    wiped[:, :150] = cv2.GaussianBlur(normal, (0, 0), 12)[:, :150]  # an edit over more than half of the picture
    assert find_mask(normal, redraw(wiped, 2.0, -1.5)).same


def test_photos_without_any_detail_are_not_called_different() -> None:
    plain = np.full((128, 160, 3), 120, np.uint8)
    brighter = np.full((128, 160, 3), 131, np.uint8)
    assert find_mask(plain, brighter).same


@pytest.mark.parametrize("category", ["leather_patch", "cookie", "hazelnut_toy", "pcb_deeppcb"])
def test_two_real_parts_are_not_compared_as_if_they_were_one(real_data: Path, category: str) -> None:
    first, second = (
        np.asarray(cv2.imread(str(path))[:, :, ::-1])
        for path in sorted((real_data / category / "test" / "good").iterdir())[:2]
    )
    second = cv2.resize(second, first.shape[1::-1])
    result = find_mask(first, second)
    assert not result.found
    assert not result.same
