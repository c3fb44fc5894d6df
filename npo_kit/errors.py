"""The one family of errors that a user can mend; their text says how."""


class KitError(ValueError):
    """Bad input: what was wrong, the value seen, what to do. The command line exits with 2."""
