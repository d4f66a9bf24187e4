"""The errors of the library; each message says what was wrong and what to do."""


class HeadError(LookupError):
    """No head was found, or more than one head; the message lists the candidates."""


class DataError(ValueError):
    """The data cannot be measured: empty, too few samples, lengths or shapes that do not match."""


class NonFiniteError(DataError):
    """Features or outputs hold NaN or infinity; the message names the batch."""


class DegenerateError(DataError):
    """Features or outputs are constant over the samples, so an alignment with them is undefined."""


class NondeterminismError(ValueError):
    """The data or the model are not deterministic; the message names which, and the module."""


class CheckpointError(ValueError):
    """A checkpoint is missing, is unsafe to load, or does not fit the model."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message names the extra that installs it."""


class RankWarning(UserWarning):
    """D_LR depends on how many small output directions are counted; see ``low_rank_band``."""


class ConvergenceWarning(UserWarning):
    """The leading part of a large spectrum did not converge to its tolerance; the message gives the error that remains."""
