"""The generator's compiled loops: from columns to bytes."""
