"""rtinfra: bare hosts to verified real-time systems."""
