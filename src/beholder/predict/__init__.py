"""Batch verdicts, and a judge's evaluation against given opinions."""
