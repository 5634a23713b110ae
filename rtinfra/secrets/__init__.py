"""Secrets by name: from the environment, from files, from an encrypted file, from a secret manager.

Who needs one asks `operator_secrets()` (this computer, as secrets.yaml says) or `LocalSecrets` (only environment and
files). What comes back is a `SecretStr`, which no log, repr or error shows; its value is taken out where it is
used and nowhere else.
"""

from rtinfra.secrets.chain import Secrets, operator_secrets
from rtinfra.secrets.errors import SecretError
from rtinfra.secrets.local import LocalSecrets

__all__ = ["LocalSecrets", "SecretError", "Secrets", "operator_secrets"]
