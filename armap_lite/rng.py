"""Seeds: one seed in, and from it an independent one for each (task, sample, step)."""

import hashlib


def derive_seed(seed: int, *keys: object) -> int:
    """A 63-bit seed that depends on `seed` and every key alone, and is the same on every machine."""
    digest = hashlib.blake2b(repr((seed, *keys)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
