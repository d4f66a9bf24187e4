"""Where a model and a Gram meet: the pass over the data and what is computed after it."""
