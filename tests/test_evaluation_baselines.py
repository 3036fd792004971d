"""The baseline generators and the sources of pairs: masks that agree with the pictures, the same bytes again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluation.baselines import BASELINES, cutpaste, draem, nsa, textures
from evaluation.baselines.croppaste import from_defects
from evaluation.data import Pair, read_pairs, write_pairs
from evaluation.errors import EvaluationError
from evaluation.generators import Source, parse_sources, shuffle
from tests.conftest import make_photo

PHOTOS = [make_photo(96, 80, seed) for seed in range(3)]


@pytest.mark.parametrize("name", BASELINES)
def test_mask_and_picture_agree(name: str) -> None:
    for seed in range(12):
        image, mask = BASELINES[name](PHOTOS, np.random.default_rng(seed))
        again, same_mask = BASELINES[name](PHOTOS, np.random.default_rng(seed))
        assert image.shape == (80, 96, 3)
        assert image.dtype == np.uint8
        assert mask.shape == (80, 96)
        assert mask.dtype == np.bool_
        assert mask.any()
        assert (image == again).all()
        assert (mask == same_mask).all()
        if name != "nsa":  # Poisson blending also changes pixels too little to be labelled
            assert any((image == photo)[~mask].all() for photo in PHOTOS), "a pixel outside the mask changed"
        assert any((image != photo).any() for photo in PHOTOS)


def test_cutpaste_draws_shapes_of_the_published_sizes() -> None:
    photo = make_photo(256, 256)
    for seed in range(20):
        _, patch = cutpaste.patch(photo, np.random.default_rng(seed))
        assert 0.018 <= patch.mean() <= 0.152
        _, scar = cutpaste.scar(photo, np.random.default_rng(seed))
        assert 2 * 10 * 0.7 <= scar.sum() <= 17 * 26 * 1.3


def test_perlin_noise_is_smooth_and_of_the_asked_scale() -> None:
    noise = draem.perlin((64, 64), np.array([4, 4]), np.random.default_rng(0))
    assert np.abs(noise).max() <= 1.01
    assert np.abs(noise[::16, ::16]).max() < 1e-6, "gradient noise is zero on its lattice"
    assert np.abs(np.diff(noise, axis=0)).max() < 0.3


def test_every_augmenter_keeps_shape_and_type() -> None:
    rng = np.random.default_rng(0)
    picture = textures.texture(PHOTOS, (40, 50), rng)
    for augment in textures.AUGMENTERS:
        for _ in range(4):
            out = augment(picture, rng)
            assert out.shape == (40, 50, 3)
            assert out.dtype == np.uint8


def test_nsa_finds_the_object_before_an_even_background() -> None:
    found = nsa.foreground(make_photo(96, 80))
    assert found[40, 48]
    assert not found[2, 2]
    texture = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    assert nsa.foreground(texture).all()


def test_nsa_blends_into_tiny_photos() -> None:
    photos = [make_photo(40, 36, seed) for seed in range(2)]
    rng = np.random.default_rng(0)
    for _ in range(60):
        _, mask = nsa.generate(photos, rng)
        assert mask.any()


def test_croppaste_pastes_the_real_defect() -> None:
    defect = Pair(np.full((80, 96, 3), 255, np.uint8), np.zeros((80, 96), bool), "spot")
    defect.mask[10:30, 20:50] = True
    image, mask = from_defects([defect])(PHOTOS, np.random.default_rng(1))
    assert mask.sum() == 600
    assert (image[mask] > 200).mean() > 0.7
    assert any((image == photo)[~mask].all() for photo in PHOTOS)


def test_shuffled_masks_are_never_ones_own() -> None:
    pairs = [Pair(PHOTOS[0], np.arange(80 * 96).reshape(80, 96) == n, "x") for n in range(5)]
    mixed = shuffle(pairs, np.random.default_rng(0))
    own = {id(pair.image): pair for pair in pairs}
    assert len(mixed) == 5
    assert len(own) == 1
    positions = [int(np.flatnonzero(pair.mask)[0]) for pair in mixed]
    assert sorted(positions) == [0, 1, 2, 3, 4]


def test_pairs_survive_being_written_and_read(tmp_path: Path) -> None:
    pairs = [Pair(*BASELINES["draem"](PHOTOS, np.random.default_rng(n)), kind=f"k{n % 2}") for n in range(4)]
    write_pairs(tmp_path, pairs)
    back = read_pairs(tmp_path)
    assert [pair.kind for pair in back] == ["k0", "k0", "k1", "k1"]
    assert (back[2].image == pairs[1].image).all()
    assert (back[2].mask == pairs[1].mask).all()


def test_sources_are_named_or_folders(tmp_path: Path) -> None:
    (tmp_path / "seas").mkdir()
    assert parse_sources(f"local, nsa,other={tmp_path}/seas,{tmp_path}/seas") == [
        Source("local"),
        Source("nsa"),
        Source("other", tmp_path / "seas"),
        Source("seas", tmp_path / "seas"),
    ]
    for wrong in ("cutmix", "", "nsa,nsa", f"nsa={tmp_path}"):
        with pytest.raises(EvaluationError, match="generator"):
            parse_sources(wrong)
    with pytest.raises(EvaluationError, match="holds no pairs"):
        read_pairs(tmp_path / "seas")
