"""The doctor examines a deployment from outside, changes nothing, and says what is wrong and how to fix it.

Modules without I/O turn facts into findings (`report`, `keys`, `planning`, `group`); the others look.
"""
