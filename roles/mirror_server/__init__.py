"""A host that serves the offline mirror: nginx with TLS in front of static trees and a read-only image registry."""
