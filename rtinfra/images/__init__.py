"""Container images and our own packages: the catalogue, building them on this computer, the store they lie in."""

from rtinfra.images.image_catalogue import ImageMissing
from rtinfra.images.image_store import LocalStore
from rtinfra.images.mirrored import MirroredStore

__all__ = ["ImageMissing", "LocalStore", "MirroredStore"]
