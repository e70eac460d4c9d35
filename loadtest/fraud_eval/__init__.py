"""How good the fraud rules are, measured on labelled traffic through the whole pipeline (docs/fraud-eval.md)."""
