"""The errors that the library raises by name; each message says what was given and how to mend it."""


class HeadError(LookupError):
    """No head was found, or more than one; the message lists the candidates."""


class DataError(ValueError):
    """The data cannot be measured: empty, too few samples, lengths or shapes that do not match."""


class NonFiniteError(DataError):
    """Features or outputs hold NaN or infinity; the message names the batch."""


class DegenerateError(DataError):
    """Features or outputs are constant over the samples, so an alignment with them is undefined."""


class NondeterminismError(ValueError):
    """The data or the model give something else the second time; the message names which, and the module."""


class CheckpointError(ValueError):
    """A checkpoint is missing, unsafe to load, or does not fit the model."""


class MissingExtraError(ImportError):
    """An optional dependency is needed; the message names the extra that brings it."""


class RankWarning(UserWarning):
    """D_LR depends on which small output directions are counted; see ``low_rank_band``."""


class ConvergenceWarning(UserWarning):
    """The leading part of a large spectrum was not found to its tolerance; the message says how far off it is."""
