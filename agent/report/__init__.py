"""One HTML file that shows a run: what went in, what came out, and every step between (see render.py)."""

from agent.report.render import render_report, write_report

__all__ = ["render_report", "write_report"]
