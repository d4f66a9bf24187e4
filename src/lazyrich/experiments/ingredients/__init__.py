"""What experiments are made of: data, networks, parametrizations, seeds."""
