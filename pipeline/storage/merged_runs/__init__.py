"""One run's folder made of several."""
