"""`python -m adledger.loadtest.fraud_eval`: what `make fraud-eval` runs."""

import sys

from adledger.loadtest.fraud_eval.evaluate import main

sys.exit(main(sys.argv[1:]))
