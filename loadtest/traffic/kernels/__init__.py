"""The generator's compiled loops: columns in, bytes out."""
