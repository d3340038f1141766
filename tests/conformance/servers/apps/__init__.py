"""The same small application on each framework; what its views do is in `work`."""
