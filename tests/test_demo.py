"""The demo photo: the same every time, and a picture that the tools can work on."""

import numpy as np
import pytest

from agent.demo import render_demo_photo
from mcp_servers.vision.scene import analyse


def test_the_same_size_gives_the_same_pixels() -> None:
    first, second = render_demo_photo(256), render_demo_photo(256)
    assert first.tobytes() == second.tobytes()
    assert (first.mode, first.size) == ("RGB", (256, 256))


def test_default_size() -> None:
    assert render_demo_photo().size == (768, 768)


@pytest.mark.parametrize("size", [0, 127, 5000])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=r"128\.\.4096"):
        render_demo_photo(size)


@pytest.mark.parametrize("size", [256, 768])
def test_the_scene_finds_the_flange(size: int) -> None:
    rgb = np.asarray(render_demo_photo(size))
    scene = analyse(rgb)
    assert scene.kind == "object"
    assert 0.30 < scene.part.mean() < 0.50
    x, y, width, height = scene.box
    assert x > 0.08 * size
    assert y > 0.08 * size
    assert 0.65 * size < height <= width < 0.85 * size
    assert not scene.part[size // 2, size // 2]  # the bore is not the part
    assert scene.light[0] < 0
    assert scene.light[1] < 0  # lamp from the upper left


def test_the_part_stands_out_from_the_bench_without_clipping() -> None:
    rgb = np.asarray(render_demo_photo()).astype(float)
    part = analyse(rgb.astype(np.uint8)).part
    assert rgb[part].mean() - rgb[~part].mean() > 70
    assert np.mean(rgb[part] >= 255) < 0.01
