"""Garage: S3 object storage on our own disks."""
