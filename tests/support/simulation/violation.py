"""What the simulation says of an engine that has broken a rule."""


class Violation(AssertionError):
    """A rule was broken."""
