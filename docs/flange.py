"""Draws README's picture: ``python docs/flange.py`` runs four tasks on the rendered flange, writes docs/flange.jpg."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from agent.demo import render_demo_photo

TASKS = (("scratch", 2), ("rust", 3), ("oil stain", 1), ("broken edge", 0))
SIDE = 300
HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run the tasks and lay the results out: whole picture, close-up, close-up with the mask."""
    sheet = Image.new("RGB", (len(TASKS) * (SIDE + 8) - 8, 2 * SIDE + SIDE // 2 + 32), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=15)
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "flange.png"
        render_demo_photo().save(photo)
        for column, (anomaly, seed) in enumerate(TASKS):
            out = Path(folder) / str(column)
            command = [sys.executable, "-m", "agent.run", str(photo), "--item", "flange", "--anomaly", anomaly]
            subprocess.run([*command, "--seed", str(seed), "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
            x = column * (SIDE + 8)
            whole, mask = Image.open(out / "anomaly.png").convert("RGB"), Image.open(out / "mask.png")
            overlay = Image.open(out / "overlay.png").convert("RGB")
            left, top, right, bottom = mask.getbbox() or (0, 0, *mask.size)
            half = max(60, int(0.7 * max(right - left, bottom - top)))
            cx = min(max((left + right) // 2, half), mask.width - half)
            cy = min(max((top + bottom) // 2, half), mask.height - half)
            box = (cx - half, cy - half, cx + half, cy + half)
            draw.text((x + 2, 3), anomaly, fill="black", font=font)
            sheet.paste(whole.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, 24))
            sheet.paste(whole.crop(box).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, SIDE + 28))
            small = (SIDE // 2 - 2, SIDE // 2)
            sheet.paste(overlay.crop(box).resize(small, Image.Resampling.LANCZOS), (x, 2 * SIDE + 32))
            sheet.paste(mask.convert("RGB").crop(box).resize(small), (x + SIDE // 2 + 2, 2 * SIDE + 32))
    sheet.save(HERE / "flange.jpg", quality=88)


if __name__ == "__main__":
    main()
