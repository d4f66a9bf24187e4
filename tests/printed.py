"""What the command line prints for a result."""

from lazyrich.cli.measure import measure
from lazyrich.cli.words import in_options
from lazyrich.results.answer import answer


def printed(result):
    return in_options(answer(result, "--table"), measure)
