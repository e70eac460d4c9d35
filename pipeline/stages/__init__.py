"""The stages: pure functions of columns, in the order that a lane calls them."""
