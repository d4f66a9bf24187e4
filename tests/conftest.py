"""Hypothesis draws the same examples in every run; ``pytest --hypothesis-profile=explore`` draws new ones."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")
