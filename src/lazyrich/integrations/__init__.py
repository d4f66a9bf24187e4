"""The monitor as a callback of others' training loops; each module needs its library and nothing imports it for you."""
