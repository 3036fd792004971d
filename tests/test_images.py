"""How images enter: every depth and mode survives, everything else is refused with a cure."""

from __future__ import annotations

import base64
import io
import os
import stat
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PILImage

from mcp_servers.images import ImageError, Photo, decode
from mcp_servers.store import Store, same_scale_views


def encoded(image: PILImage.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(width: int = 48, height: int = 36) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_rgb_grey_and_alpha_survive_decoding_and_the_store_unchanged(store: Store) -> None:
    rgb = ramp()
    for image in (
        PILImage.fromarray(rgb),
        PILImage.fromarray(rgb[:, :, 0]),
        PILImage.fromarray(np.dstack([rgb, rgb[:, :, :1]])),
    ):
        photo = decode(encoded(image), "x.png")
        again = store.get(store.put(photo))
        assert np.array_equal(photo.pixels, np.asarray(image)[..., :3] if image.mode != "L" else np.asarray(image))
        assert np.array_equal(photo.pixels, again.pixels)
        assert (photo.alpha is not None) == (image.mode == "RGBA")


def test_palette_and_transparent_palette_become_colour() -> None:
    image = PILImage.fromarray(ramp()).quantize(16)
    assert decode(encoded(image), "x").pixels.shape == (36, 48, 3)
    assert np.array_equal(decode(encoded(image), "x").pixels, np.asarray(image.convert("RGB")))
    assert decode(encoded(image, transparency=0), "x").alpha is not None


def test_bilevel_becomes_grey_and_cmyk_becomes_colour() -> None:
    assert decode(encoded(PILImage.fromarray(ramp()).convert("1")), "x").pixels.ndim == 2
    assert decode(encoded(PILImage.fromarray(ramp()).convert("CMYK"), "JPEG"), "x").pixels.shape == (36, 48, 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_files_keep_their_depth(kind: str, channels: int, store: Store) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (40, 48, channels), dtype=np.uint16).squeeze()
    ok, data = cv2.imencode(f".{kind.lower()}", values[..., ::-1] if channels == 3 else values)
    assert ok
    photo = decode(data.tobytes(), "x")
    assert photo.pixels.dtype == np.uint16
    assert np.array_equal(photo.pixels, values)
    assert np.array_equal(store.get(store.put(photo)).pixels, values)


def test_twelve_bit_values_in_a_sixteen_bit_file_are_rescaled_not_shown_black() -> None:
    photo = Photo(np.linspace(0, 4095, 400, dtype=np.uint16).reshape(20, 20))
    assert photo.full_scale == 4095
    assert photo.view().max() == 255


def test_a_pair_of_sixteen_bit_images_is_compared_on_one_scale() -> None:
    bright = Photo(np.full((20, 20), 4000, np.uint16))
    dark = Photo(np.full((20, 20), 1000, np.uint16))
    normal, anomaly = same_scale_views(bright, dark)
    assert normal.max() == 249
    assert anomaly.max() == 62


def test_of_a_phones_multi_picture_jpeg_the_main_picture_counts() -> None:
    main, other = PILImage.fromarray(ramp()), PILImage.new("RGB", (20, 10))
    data = encoded(main, "MPO", save_all=True, append_images=[other], quality=95)
    assert PILImage.open(io.BytesIO(data)).format == "MPO"
    assert np.array_equal(decode(data, "phone.jpg").pixels, np.asarray(PILImage.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_viewers_do(orientation: int) -> None:
    image = PILImage.fromarray(ramp(48, 32))
    exif = PILImage.Exif()
    exif[274] = orientation
    photo = decode(encoded(image, exif=exif.tobytes()), "x")
    assert (photo.width, photo.height) == ((32, 48) if orientation >= 5 else (48, 32))
    deep = cv2.imencode(".png", np.asarray(image)[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes()
    chunk = exif.tobytes().removeprefix(b"Exif\0\0")
    block = struct.pack(">I", len(chunk)) + b"eXIf" + chunk + struct.pack(">I", zlib.crc32(b"eXIf" + chunk))
    turned = decode(deep[:33] + block + deep[33:], "x")
    assert np.array_equal(turned.pixels // 257, photo.pixels)


def test_composite_changes_nothing_outside_the_defect_at_any_depth() -> None:
    rng = np.random.default_rng(5)
    weight = np.zeros((36, 48), np.float32)
    weight[10:20, 10:20] = 0.5
    for pixels in (
        rng.integers(0, 256, (36, 48, 3), dtype=np.uint8),
        rng.integers(0, 256, (36, 48), dtype=np.uint8),
        rng.integers(0, 65536, (36, 48), dtype=np.uint16),
        rng.integers(0, 65536, (36, 48, 3), dtype=np.uint16),
    ):
        photo = Photo(pixels)
        rendered = photo.view().astype(np.float32)
        rendered[weight > 0] *= 0.5
        edited = photo.composite(rendered, weight)
        changed = edited.pixels != photo.pixels
        changed = changed.any(2) if changed.ndim == 3 else changed
        assert edited.pixels.dtype == pixels.dtype
        assert not changed[weight == 0].any()
        assert changed[weight > 0].mean() > 0.9


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"not an image at all", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (b"%PDF-1.4", "not an image"),
        (encoded(PILImage.fromarray(ramp()))[:400], "damaged or cut off"),
        (encoded(PILImage.new("L", (1, 1))), "at least 32 pixels"),
        (encoded(PILImage.fromarray(ramp()), "GIF"), "not an image of a supported format"),
        (encoded(PILImage.fromarray(np.zeros((40, 40), np.float32)), "TIFF"), "floating-point"),
    ],
)
def test_what_is_not_a_usable_picture_is_refused_with_the_cure(data: bytes, says: str) -> None:
    with pytest.raises(ImageError, match=says) as refusal:
        decode(data, "part.png")
    assert "part.png" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_picture_of_50000_by_50000_is_refused_before_it_is_decoded() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="megapixels"):
        decode(bomb, "bomb.png")


def test_a_picture_with_several_frames_is_refused() -> None:
    frames = [PILImage.fromarray(ramp()), PILImage.fromarray(ramp()[::-1].copy())]
    with pytest.raises(ImageError, match="frames"):
        decode(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]), "x.tif")


def test_the_same_pixels_have_one_handle_and_another_store_another_one(store: Store, tmp_path: Path) -> None:
    photo = Photo(ramp())
    assert store.put(photo) == store.put(Photo(ramp())) == Store(home=store.home).put(photo)
    assert Store(home=tmp_path / "other").put(photo) != store.put(photo)


def test_handles_paths_and_data_uris_name_the_same_picture(store: Store, tmp_path: Path) -> None:
    data = encoded(PILImage.fromarray(ramp()))
    (tmp_path / "a b.png").write_bytes(data)
    by_path, _ = store.resolve("a b.png")
    by_uri, _ = store.resolve("data:image/png;base64," + base64.encodebytes(data).decode())
    assert by_path == by_uri == store.resolve(by_path)[0] == store.resolve(f"image://{by_path}")[0]
    assert store.resolve(str(tmp_path / "a b.png"))[0] == by_path


def test_a_changed_file_is_read_again(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    path.write_bytes(encoded(PILImage.fromarray(ramp())))
    first, _ = store.resolve("part.png")
    path.write_bytes(encoded(PILImage.fromarray(ramp()[::-1].copy())))
    os.utime(path, ns=(1, 1))
    assert store.resolve("part.png")[0] != first


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("", "empty"),
        ("missing.png", "does not exist"),
        ("../../etc/passwd", "outside the folders"),
        ("/etc/passwd", "outside the folders"),
        ("link.png", "outside the folders"),
        ("a\0b.png", "not a usable path"),
        ("x" * 5000, "not a usable path"),
        (".", "is a folder"),
        ("http://127.0.0.1/a.png", "URLs are not fetched"),
        ("file:///etc/passwd", "URLs are not fetched"),
        ("img_" + "0" * 32, "unknown"),
        ("img_zz", "is not an image handle"),
        ("image://../../etc/passwd", "outside the folders"),
        ("data:image/png;base64,@@@@", "damaged"),
        ("data:image/png,raw", "base64"),
    ],
)
def test_references_that_name_no_allowed_picture_are_refused(
    store: Store, tmp_path: Path, reference: str, says: str
) -> None:
    (tmp_path / "link.png").symlink_to("/etc/hostname")
    with pytest.raises(ImageError, match=says):
        store.resolve(reference)


def test_the_key_of_the_store_is_private_and_cannot_be_read_as_an_image(store: Store) -> None:
    store.put(Photo(ramp()))
    key = store.home / ".key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with pytest.raises(ImageError):
        store.resolve(str(key))


@pytest.mark.parametrize("handle", ["img_zz", "img_", "image://img_zz", "img_" + "0" * 31, "img_" + "0" * 5000])
def test_what_is_written_like_a_handle_is_not_looked_for_among_the_files(store: Store, handle: str) -> None:
    with pytest.raises(ImageError, match="is not an image handle: use one that a tool returned"):
        store.resolve(handle)


def test_a_file_may_be_named_like_a_handle(store: Store, tmp_path: Path) -> None:
    (tmp_path / "img_0001").write_bytes(encoded(PILImage.fromarray(ramp())))
    assert np.array_equal(store.resolve("img_0001")[1].pixels, ramp())


def test_a_key_that_protects_nothing_is_refused_with_the_cure(store: Store) -> None:
    store.home.mkdir(parents=True, exist_ok=True)
    (store.home / ".key").touch()
    with pytest.raises(ImageError, match=r"key of the image store is damaged: remove .*\.key"):
        store.put(Photo(ramp()))


def test_a_store_that_cannot_be_written_says_how_to_choose_another(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ImageError, match="ANOMALY_AGENT_HOME"):
        Store(home=blocked / "store").put(Photo(ramp()))
