"""``python -m agent.report PATH [--out FILE]``: write a run's report and print where it is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.report.render import write_report
from agent.session import SessionError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code (0, or 2 for input that cannot be used)."""
    parser = argparse.ArgumentParser(
        prog="python -m agent.report", description="Write one self-contained HTML file that shows a recorded run."
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="a run's folder, or a session folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write (default: report.html in PATH)")
    options = parser.parse_args(arguments)
    try:
        written = write_report(options.path, options.out)
    except SessionError as error:
        cure = "" if "result.json" in str(error) else ". PATH is the folder that agent.run wrote, or its session folder"
        sys.stderr.write(f"error: {error}{cure}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"error: the report cannot be written ({error}): name a writable file with --out\n")
        return 2
    sys.stdout.write(f"{written}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
