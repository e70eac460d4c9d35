"""The fraud rules: what they are, rule sets as data, their windows, and the judge that is made of them."""
