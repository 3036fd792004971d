"""Many runs at a glance: original, anomaly, overlay and score of every run's folder, as one picture.

python -m benchmarks.contact_sheet RUNS_DIR --out sheet.png [--columns 3] [--side 200] [--limit 60]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from PIL import Image, ImageDraw


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description="A contact sheet of runs.")
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--columns", type=int, default=3, help="runs a row")
    parser.add_argument("--side", type=int, default=200, help="pixels a picture")
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--match", default="", help="only runs whose folder name holds this")
    options = parser.parse_args()
    folders = sorted(p.parent for p in options.runs.glob("*/result.json") if options.match in p.parent.name)
    folders = folders[: options.limit]
    if not folders:
        parser.error(f"no runs in {options.runs}")
    side = options.side
    cell = (3 * side + 6, side + 30)
    rows = -(-len(folders) // options.columns)
    sheet = Image.new("RGB", (cell[0] * options.columns, cell[1] * rows), "white")
    draw = ImageDraw.Draw(sheet)
    for n, folder in enumerate(folders):
        x, y = (n % options.columns) * cell[0], (n // options.columns) * cell[1]
        result = json.loads((folder / "result.json").read_text())
        scores = " ".join(str(image["score"]) for image in result["images"])
        draw.text((x + 2, y + 1), f"{folder.name}", fill="black")
        draw.text((x + 2, y + 13), f"{result['status']}  scores {scores}  {result['error'] or ''}"[:100], fill="black")
        for k, name in enumerate(("original", "anomaly", "overlay")):
            if not (folder / f"{name}.png").exists():
                continue
            picture = Image.open(folder / f"{name}.png").convert("RGB")
            scale = min(side / picture.width, side / picture.height)
            picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
            sheet.paste(picture, (x + k * (side + 1), y + 27))
    sheet.save(options.out)
    print(json.dumps({"runs": len(folders), "sheet": str(options.out)}))


if __name__ == "__main__":
    main()
