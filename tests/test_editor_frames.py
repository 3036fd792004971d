"""Photos in an editor's frame and back, and only the defect of what came back on the photo."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mcp_servers.errors import BackendError, FailureKind
from mcp_servers.image_gen.composite_back import isolate
from mcp_servers.image_gen.geometry import Frame, closest_size, free_size, size_of
from mcp_servers.image_gen.told import told

from .conftest import make_photo
from .servers.fake_editors import redrawn, scratched

SIZES = [(160, 128), (128, 160), (33, 200), (640, 101), (1500, 1000)]
RATIOS = [size_of(ratio) for ratio in ("1:1", "3:2", "2:3", "16:9", "9:16")]


def frames(size: tuple[int, int]) -> list[Frame]:
    return [free_size(*size), closest_size(*size, RATIOS)]


@pytest.mark.parametrize("size", SIZES)
def test_a_photo_comes_back_from_every_frame_where_it_was(size: tuple[int, int]) -> None:
    photo = cv2.GaussianBlur(make_photo(*size), (0, 0), 1.5)
    for frame in frames(size):
        sent = frame.enter(photo)
        assert (sent.shape[1], sent.shape[0]) == frame.size
        back = frame.leave(sent)
        assert back.shape == photo.shape
        error = np.abs(back.astype(int) - photo)
        assert error.mean() < 1.0, frame
        assert np.percentile(error, 99) <= 6, frame


@pytest.mark.parametrize("size", SIZES)
def test_proportions_are_kept_by_padding(size: tuple[int, int]) -> None:
    for frame in frames(size):
        across, down = (padded / sent for padded, sent in zip(frame.padded, frame.size, strict=True))
        assert across == pytest.approx(down, rel=0.03)
        assert 0.6e6 < frame.size[0] * frame.size[1] < 1.7e6


def test_a_region_lies_on_the_same_part_in_the_frame() -> None:
    region = np.zeros((128, 160), bool)
    region[30:60, 100:140] = True
    frame = closest_size(160, 128, [(1024, 1024)])
    seen = frame.enter_mask(region)
    assert seen.mean() == pytest.approx(30 * 40 / 160**2, abs=0.002)
    ys, xs = np.nonzero(seen)
    assert ys.mean() / 1024 == pytest.approx((16 + 45) / 160, abs=0.005)
    assert xs.mean() / 1024 == pytest.approx(120 / 160, abs=0.005)
    prompt = told("Scratch it.", count=0, size="", severity="", region=seen, example=False)
    assert "in the right part of the picture, between 62% and 88% of its width" in prompt


def test_an_edit_in_place_is_taken_over_and_all_else_left(photo: np.ndarray) -> None:
    isolated = isolate(photo, scratched(photo))
    truth = (scratched(photo) != photo).any(axis=2)
    out = np.rint(isolated.rgb).astype(np.uint8)
    assert (out[isolated.alpha == 0] == photo[isolated.alpha == 0]).all()
    assert (out[truth] == scratched(photo)[truth]).all(axis=1).mean() > 0.8
    assert isolated.notes == []


def test_a_recoloured_redraw_leaves_no_colour_behind(photo: np.ndarray) -> None:
    large = cv2.resize(photo, (640, 512), interpolation=cv2.INTER_CUBIC)
    isolated = isolate(large, redrawn(scratched(large)))
    truth = cv2.dilate((scratched(large) != large).any(axis=2).astype(np.uint8), np.ones((5, 5))) > 0
    rim = (isolated.alpha > 0) & ~truth
    assert rim.any()
    assert abs((isolated.rgb - large)[rim].mean()) < 4
    inside = cv2.erode(truth.astype(np.uint8), np.ones((9, 9))) > 0
    assert np.abs(isolated.rgb[inside] - scratched(large)[inside]).mean() < 12


@pytest.mark.parametrize("change", ["upside down", "cropped"])
def test_what_shows_something_else_is_not_accepted(change: str) -> None:
    photo = make_photo(320, 256)
    photo[40:90, 60:200] = (200, 60, 40)
    views = {"upside down": photo[::-1], "cropped": photo[30:-30, 40:-40]}
    returned = cv2.resize(np.ascontiguousarray(views[change]), (320, 256), interpolation=cv2.INTER_AREA)
    with pytest.raises(BackendError) as caught:
        isolate(photo, returned)
    assert caught.value.kind is FailureKind.EMPTY
