"""Many pictures at a glance: the renderer's families on real photos, or the runs of a folder.

    python -m benchmarks.contact_sheet --data DIR --out DIR [--category NAME ...] [--count 40] [--seed 0]
    python -m benchmarks.contact_sheet RUNS_DIR --out sheet.png [--columns 3] [--side 200] [--limit 60]

The first, for a folder in MVTec layout, writes ``CATEGORY.png``: 40 samples, the category's own kinds of defect first,
then what else befalls the material; each cell shows the whole picture and, below it, the defect enlarged. Where the
category has real defects, ``CATEGORY_real.png`` sets them below ours of the same kind. The second shows original,
anomaly, overlay and score of every run's folder.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from agent.policies.refine import step
from evaluation.data import Image as Photo
from evaluation.data import find_categories, images_in, load_category, read_image
from evaluation.errors import EvaluationError
from evaluation.folders import prepare
from evaluation.ours import asked_for, understood
from mcp_servers.errors import RegionError
from mcp_servers.image_gen.local import render
from mcp_servers.knowledge.catalogue import find_page, general_page, material_of, profile_for
from mcp_servers.knowledge.families import Family
from mcp_servers.prompt_gen.local import generate_prompt

COLUMNS, SIDE, TITLE = 8, 190, 14
"""Cells a row of a sheet of samples; side of a picture and height of the line above it (px)."""
NEVER = {Family.SHORT, Family.OPEN}
"""Families that only an item's own page asks for."""
ONLY_METAL = {Family.RUST, Family.BEND}
"""Families that a material shows only where its own general page says so."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture (H, W, 3), the box (x, y, width, height) of its defect, and a line above it."""

    picture: Photo
    box: tuple[int, int, int, int]
    title: str


def main() -> None:
    """Draw the sheets."""
    parser = argparse.ArgumentParser(description="Contact sheets of the renderer's families, or of runs.")
    parser.add_argument("runs", type=Path, nargs="?", help="folder of runs")
    parser.add_argument("--data", type=Path, help="folder in MVTec layout: sheets of samples instead of runs")
    parser.add_argument("--out", type=Path, required=True, help="the picture; with --data a folder")
    parser.add_argument("--category", action="append", default=[], help="only this category; may be repeated")
    parser.add_argument("--count", type=int, default=40, help="samples a category")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--columns", type=int, default=3, help="runs a row")
    parser.add_argument("--side", type=int, default=200, help="pixels a picture of a run")
    parser.add_argument("--limit", type=int, default=60, help="runs at most")
    parser.add_argument("--match", default="", help="only runs whose folder name holds this")
    options = parser.parse_args()
    if (options.runs is None) == (options.data is None):
        parser.error("name a folder of runs, or --data with a folder of photos")
    if options.runs is not None:
        print(json.dumps(sheet_of_runs(options)))
        return
    try:
        folders = find_categories(options.data, options.category)
        prepare("--out", options.out)
        for folder in folders:
            print(json.dumps(sheets_of_samples(folder, options.out, options.count, options.seed)), flush=True)
    except EvaluationError as error:
        parser.error(str(error))


def sheets_of_samples(folder: Path, out: Path, count: int, seed: int) -> dict[str, Any]:
    """Write a category's sheets; says where they are, and why samples are missing.

    Raises EvaluationError where it has no photos, or no sample could be made of them.
    """
    photos = [read_image(path) for path in images_in(folder / "train" / "good")]
    if not photos:
        raise EvaluationError(f"{folder / 'train' / 'good'} holds no photo")
    tests = folder / "test"
    real = sorted(p.name for p in tests.iterdir() if p.is_dir() and p.name != "good") if tests.is_dir() else []
    own, others = kinds_of(folder.name, real)
    share = min(8, max(3, count // 2 // max(1, len(own))))
    plan = [kind for kind in own for _ in range(share)][:count]
    plan += [others[n % len(others)] for n in range(count - len(plan))]
    refused: Counter[str] = Counter()
    cells = list(samples(photos, folder.name, sorted(plan, key=[*own, *others].index), seed, refused))
    if not cells:
        raise EvaluationError(f"{folder.name}: no sample could be made: {'; '.join(refused) or '--count 1 at least'}")
    write(cells, out / f"{folder.name}.png")
    said: dict[str, Any] = {"category": folder.name, "samples": len(cells), "sheet": str(out / f"{folder.name}.png")}
    if real:
        pairs = load_category(folder)
        beside: list[Cell] = []
        for kind in real:
            asked = asked_for(folder.name, [kind])
            row = [asked[n % len(asked)] for n in range(COLUMNS)]
            beside += samples(photos, folder.name, row, seed + 1000, refused)
            beside += [Cell(np.full((8, 8, 3), 255, np.uint8), (0, 0, 8, 8), "")] * (-len(beside) % COLUMNS)
            found = [pair for pair in (*pairs.shown, *pairs.held_out) if pair.kind == kind][
                :: max(1, len(photos) // 30)
            ]
            beside += [
                Cell(p.image, cv2.boundingRect(p.mask.astype(np.uint8)), f"REAL {kind}") for p in found[:COLUMNS]
            ]
            beside += [Cell(np.full((8, 8, 3), 255, np.uint8), (0, 0, 8, 8), "")] * (-len(beside) % COLUMNS)
        write(beside, out / f"{folder.name}_real.png")
    return said | ({"refused": dict(refused)} if refused else {})


def kinds_of(item: str, real: Sequence[str]) -> tuple[list[str], list[str]]:
    """The item's own kinds of defect (those in its folder, then its page's), and others of its material."""
    page = find_page(item)
    own = [kind for kind in real if understood(item, kind)]
    known = {profile_for(item, kind).noun for kind in own}
    own += [entry.name for entry in (page.entries if page else ()) if entry.noun not in known]
    taken = {profile_for(item, kind).family for kind in own} | NEVER
    others: dict[Family, str] = {}
    for name in (material_of(item), "surface"):
        for entry in general_page(name).entries:
            foreign = name == "surface" and entry.family in ONLY_METAL
            if entry.family not in taken and not foreign:
                others.setdefault(entry.family, entry.name)
    return own, list(others.values()) or own


def samples(
    photos: Sequence[Photo], item: str, kinds: Sequence[str], seed: int, refused: Counter[str]
) -> Iterator[Cell]:
    """A rendered sample of each kind; kinds that a photo cannot carry are tried on three photos.

    ``refused`` counts the samples that could not be made, by what was said of the last photo.
    """
    rng = np.random.default_rng(seed)
    for number, kind in enumerate(kinds):
        for attempt in range(3):
            photo = photos[int(rng.integers(len(photos)))]
            size, severity = (int(v) for v in rng.integers(-1, 2, 2))
            prompt = step(generate_prompt(photo, item, kind).prompt, size=size, severity=severity).prompt
            try:
                made = render(photo, prompt, seed + number)
            except RegionError as error:
                if attempt == 2:
                    refused[f"{kind}: {error}"] += 1
                continue
            title = f"{kind} {made.spec.size} {made.spec.severity}"
            yield Cell(np.clip(np.rint(made.rgb), 0, 255).astype(np.uint8), made.box, title)
            break


def write(cells: Sequence[Cell], path: Path) -> None:
    """Cells row by row: the picture above, its defect enlarged below."""
    height = TITLE + 2 * SIDE + 4
    sheet = np.full((-(-len(cells) // COLUMNS) * height, COLUMNS * (SIDE + 4), 3), 255, np.uint8)
    for number, cell in enumerate(cells):
        top, left = number // COLUMNS * height, number % COLUMNS * (SIDE + 4)
        cv2.putText(
            sheet, cell.title[:32], (left + 1, top + 11), cv2.FONT_HERSHEY_SIMPLEX, 0.34, (0, 0, 0), 1, cv2.LINE_AA
        )
        for row, picture in enumerate((cell.picture, closeup(cell))):
            scale = SIDE / max(picture.shape[:2])
            size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
            small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
            at = top + TITLE + row * (SIDE + 2)
            sheet[at : at + small.shape[0], left : left + small.shape[1]] = small
    cv2.imwrite(str(path), sheet[:, :, ::-1])


def closeup(cell: Cell) -> Photo:
    """A square around the defect with half as much around it, at least 48 px wide where the picture is."""
    x, y, width, height = cell.box
    full = min(cell.picture.shape[:2])
    side = int(min(full, max(48, 1.5 * max(width, height))))
    left = int(np.clip(x + width / 2 - side / 2, 0, cell.picture.shape[1] - side))
    top = int(np.clip(y + height / 2 - side / 2, 0, cell.picture.shape[0] - side))
    return cell.picture[top : top + side, left : left + side]


def sheet_of_runs(options: argparse.Namespace) -> dict[str, str | int]:
    """Draw original, anomaly, overlay and scores of the runs in a folder."""
    folders = sorted(p.parent for p in options.runs.glob("*/result.json") if options.match in p.parent.name)
    folders = folders[: options.limit]
    if not folders:
        raise SystemExit(f"no runs in {options.runs}: name a folder that holds RUN/result.json")
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
    return {"runs": len(folders), "sheet": str(options.out)}


if __name__ == "__main__":
    main()
