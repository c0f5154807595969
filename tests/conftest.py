"""Settings of Hypothesis for all tests: no deadline, since how fast a machine is must fail no test."""

from hypothesis import settings

settings.register_profile("tests", deadline=None)
settings.load_profile("tests")
