"""The cache of frozen vision features changes nothing but the work."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture
def visual() -> Any:
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

    torch.manual_seed(0)
    sizes = {"depth": 4, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 24}
    config = Qwen3VLVisionConfig(**sizes, num_position_embeddings=64, deepstack_visual_indexes=[1, 2], patch_size=4)
    model = Qwen3VLVisionModel(config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("merger" in name)
    return model


def images(*grids: tuple[int, int], seed: int = 1) -> tuple[Any, Any]:
    """Random pixel values of images with so many patches down and across, and their grid_thw."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(sum(h * w for h, w in grids), 3 * 2 * 4 * 4, generator=generator)
    return pixels, torch.tensor([[1, h, w] for h, w in grids])


def outputs(visual: Any, pixels: Any, grids: Any) -> list[Any]:
    seen = visual(pixels, grid_thw=grids)
    return [seen.pooler_output, *seen.deepstack_features]


def test_features_and_projector_gradients_equal_the_encoders_own(visual: Any) -> None:
    from training.vision_cache import FrozenVisionCache

    pixels, grids = images((4, 6), (8, 2), (4, 4))

    def run() -> tuple[list[Any], list[Any]]:
        visual.zero_grad()
        seen = outputs(visual, pixels, grids)
        sum(part.square().sum() for part in seen).backward()
        return [part.detach() for part in seen], [p.grad.clone() for p in visual.parameters() if p.requires_grad]

    expected = run()
    cache = FrozenVisionCache(visual)
    for _ in range(2):
        for ours, theirs in zip(run(), expected, strict=True):
            for left, right in zip(ours, theirs, strict=True):
                torch.testing.assert_close(left, right)
    assert (cache.misses, cache.hits) == (3, 3)
    cache.remove()
    torch.testing.assert_close(run()[0], expected[0])


def test_an_image_is_encoded_once_whatever_batch_it_comes_in(visual: Any) -> None:
    from training.vision_cache import FrozenVisionCache

    pixels, grids = images((4, 6), (8, 2))
    expected = outputs(visual, pixels[24:], grids[1:])
    cache = FrozenVisionCache(visual)
    outputs(visual, pixels, grids)
    alone = outputs(visual, pixels[24:], grids[1:])
    assert (cache.misses, cache.hits) == (2, 1)
    for left, right in zip(alone, expected, strict=True):
        torch.testing.assert_close(left, right)
    twice = torch.cat([pixels[24:], pixels[24:]])
    outputs(visual, twice, torch.cat([grids[1:], grids[1:]]))
    assert (cache.misses, cache.hits) == (2, 3)


def test_images_that_differ_in_one_value_are_told_apart(visual: Any) -> None:
    from training.vision_cache import FrozenVisionCache

    pixels, grids = images((4, 4))
    cache = FrozenVisionCache(visual)
    outputs(visual, pixels, grids)
    changed = pixels.clone()
    changed[3, 7] += 1 / 128
    outputs(visual, changed, grids)
    assert cache.misses == 2


def test_the_least_recently_used_image_goes_first_when_the_cache_is_full(visual: Any) -> None:
    from training.vision_cache import FrozenVisionCache

    one = 3 * 16 * 32 * 4  # merger and two deepstack inputs, 16 patches, 32 wide, float32
    cache = FrozenVisionCache(visual, max_bytes=2 * one)
    first, second, third = (images((4, 4), seed=seed) for seed in (1, 2, 3))
    for shown in (first, second, first, third, first):
        outputs(visual, *shown)
    assert (cache.misses, cache.hits) == (3, 2)
    outputs(visual, *second)
    assert cache.misses == 4


def test_an_encoder_that_trains_is_refused(visual: Any) -> None:
    from training.vision_cache import FrozenVisionCache

    visual.blocks[0].requires_grad_(True)
    with pytest.raises(ValueError, match="freeze all of it"):
        FrozenVisionCache(visual)
