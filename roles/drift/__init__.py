"""Each host looks daily, by itself, whether it still is what the last deploy made of it."""
