"""A recorded session as one HTML file that needs nothing else: no network, no folder beside it.

pictures.py embeds the images, summary.py says what the run came to, turns.py retells the conversation,
template.html.jinja lays it out. Names, thoughts and reviews were written by others and are escaped; the page's
security policy lets only its own style and script run, known by their hashes.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2
from markupsafe import Markup

from agent.report.pictures import Album
from agent.report.summary import judge, read_attempts, read_facts, read_ledger, read_mask
from agent.report.turns import pretty, read_conversation
from agent.session import LOG_NAME, Session, SessionError, read_session, write_atomic

REPORT_NAME = "report.html"


def render_report(session: Session, result: dict[str, Any] | None = None) -> str:
    """The whole page.

    result: the run's result.json, where there is one; what it lacks is taken from the session. Images that the
    session has lost are named in the page and raise nothing.
    """
    result, album = result or {}, Album(session)
    attempts = read_attempts(session, album)
    chosen = next((attempt for attempt in attempts if attempt.chosen), None)
    mask, mask_facts = read_mask(session, chosen)
    verdict = judge(session, result, chosen)
    original = next(
        (i for e in session.of_type("message") for i in e.get("images") or [] if i.get("role") == "original"), None
    )
    system, entries = read_conversation(session, album)
    task = session.start.get("task") or {}
    scores = {
        name: result.get(name, getattr(chosen, name, None)) for name in ("score", "location_score", "quality_score")
    }
    style, script = _asset("report.css"), _asset("report.js")
    return _template().render(
        style=Markup(style),
        script=Markup(script),
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
        item=str(task.get("item_name") or "unnamed item"),
        anomaly=str(task.get("anomaly_type") or "unnamed anomaly"),
        verdict=verdict,
        torn=session.torn,
        scores=scores,
        facts=read_facts(session, result),
        before=album.photo(original) if original else None,
        after=album.photo(chosen.image) if chosen else None,
        mask=album.mask(mask, tinted=True) if mask else None,
        start=max(6, round(100 * album.left_edge(mask)) - 8) if mask else 50,
        mask_facts=mask_facts,
        attempts=attempts,
        ledger=read_ledger(session),
        chosen=chosen,
        system=system,
        entries=entries,
        rewards=[pretty(_payload(event)) for event in session.of_type("reward")],
        tools=[pretty(tool) for tool in session.start.get("tools") or []],
        files=_files(result),
        summary={"item_name": task.get("item_name"), "anomaly_type": task.get("anomaly_type")}
        | {"verdict": verdict.kind, **scores},
    )


def write_report(run_folder: Path, out: Path | None = None) -> Path:
    """Render a run folder, or a session folder, to ``out`` and return where it went.

    Without ``out`` the report is written into the run folder, or into the session folder where that stands
    alone. Raises SessionError where there is no session or result.json is damaged, OSError where the report
    cannot be written.
    """
    session = read_session(run_folder)
    folder = run_folder
    if (run_folder / LOG_NAME).exists() and (run_folder.parent / "session" / LOG_NAME).exists():
        folder = run_folder.parent  # the session folder of a run: the report belongs to the run
    html = render_report(session, _read_result(folder / "result.json"))
    target = folder / REPORT_NAME if out is None else out
    write_atomic(target, html.encode())
    return target


def _read_result(path: Path) -> dict[str, Any] | None:
    try:
        result = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SessionError(
            f"{path} cannot be read ({error}): delete it and the report is made from the session"
        ) from error
    if not isinstance(result, dict):
        raise SessionError(f"{path} is not a JSON object: delete it and the report is made from the session")
    return result


def _files(result: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """(label, path, whether to link it) of the run's files; only paths inside the run's folder become links."""
    given = result.get("files") or []
    named = given.items() if isinstance(given, dict) else [(PurePosixPath(str(f)).name, f) for f in given]
    files = []
    for label, value in named:
        path = str(value)
        inside = ":" not in path and "\\" not in path and not path.startswith("/")
        files.append((str(label), path, inside and ".." not in PurePosixPath(path).parts))
    return files


def _payload(event: dict[str, Any]) -> dict[str, Any]:
    """An event without its bookkeeping."""
    return {key: value for key, value in event.items() if key not in ("v", "seq", "type")}


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("agent.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json"] = pretty
    return environment.get_template("template.html.jinja")


@functools.cache
def _asset(name: str) -> str:
    return resources.files("agent.report").joinpath(name).read_text("utf-8").replace("\r\n", "\n")


def _csp_hash(text: str) -> str:
    """The source expression by which a Content-Security-Policy allows exactly this inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
