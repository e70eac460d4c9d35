"""Reports of a run folder: one HTML page that needs no network, Markdown and JUnit XML for CI."""
