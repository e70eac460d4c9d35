"""Checking tables against the ground truth: what differs, which events are behind it, and whether verdicts are right."""
