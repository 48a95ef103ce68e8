"""Settings for all tests: nothing depends on how fast the machine is."""

from hypothesis import settings

settings.register_profile("accord", deadline=None, print_blob=True)
settings.load_profile("accord")
