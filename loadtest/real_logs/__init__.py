"""Two public logs that ship with adledger, and what the pipeline must count in them."""
