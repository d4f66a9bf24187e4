"""An experiment over a grid of settings, on one machine or on several."""
