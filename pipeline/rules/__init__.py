"""The fraud rules: what they are, rule sets as data, their windows, and the rule evaluator made of them."""
