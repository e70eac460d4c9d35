"""The contracts: the wire, the classes and reasons, the tables and their migrations."""
