"""The parts of the experiments: data, networks, parametrizations, seeds."""
