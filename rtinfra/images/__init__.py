"""Container images and our own packages: the catalogue, building them on this computer, the store they lie in."""

from rtinfra.images.catalogue import ImageMissing
from rtinfra.images.mirrored import MirroredStore
from rtinfra.images.store import LocalStore

__all__ = ["ImageMissing", "LocalStore", "MirroredStore"]
