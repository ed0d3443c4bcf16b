"""Findings to HTML, Markdown, terminal text and figures."""
