"""The demo: real logs and generated attacks through the whole pipeline, checked against the ground truth."""
