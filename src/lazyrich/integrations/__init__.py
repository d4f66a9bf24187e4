"""The monitor as a callback of other training loops. Import the module of your library; the package does not."""
