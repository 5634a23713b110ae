"""A host whose packages, Python wheels and container images come from the offline mirror and from nowhere else."""
