"""The doctor: looks at a deployment from outside, changes nothing, and says what is wrong and what mends it.

Modules without I/O turn facts into findings (`report`, `keys`, `planning`, `group`); the others look.
"""
