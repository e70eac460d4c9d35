"""adledger: a billing-grade ad event pipeline.

The four folders beside this one are its packages, `adledger.pipeline` and so on, by way of the links in here (docs/adr/0019).
"""

__version__ = "0.1.0"
