"""What all tests share."""

from hypothesis import settings

settings.register_profile("adledger", deadline=None, print_blob=True)
settings.load_profile("adledger")
