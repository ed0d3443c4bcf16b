"""Writes findings as HTML, Markdown, terminal text and figures; chooses no words of the answer (`analysis/conclusions`)."""
