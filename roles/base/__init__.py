"""What every host gets: time, journal limits, users and groups, real-time limits."""
