"""Bytes that show any damage: a digest at their end."""

from hashlib import blake2b

# A seal is this mark and a digest of all bytes before it.
MARK, DIGEST_SIZE = b"\nhtsr seal ", 32
SEAL_SIZE = len(MARK) + DIGEST_SIZE


def seal(data: bytes, context: str = "") -> bytes:
    """Return bytes with a digest after them, from which ``unseal`` tells whether any bit has changed.

    ``context`` says what the bytes are for, so that a file that somebody renamed counts as damaged. Readers of zip and npy files
    ignore the seal.
    """
    return data + MARK + _digest(data, context)


def unseal(data: bytes, context: str = "") -> bytes:
    """Return the bytes that ``seal`` got; raise ValueError if the seal is missing or does not fit."""
    if not is_sealed(data):
        raise ValueError("it does not end with a checksum")
    sealed = data[:-SEAL_SIZE]
    if data[-DIGEST_SIZE:] != _digest(sealed, context):
        raise ValueError("its checksum does not fit its content")
    return sealed


def is_sealed(data: bytes) -> bool:
    """Return whether bytes end with a seal, fitting or not."""
    return data[-SEAL_SIZE:-DIGEST_SIZE] == MARK


def _digest(data: bytes, context: str) -> bytes:
    digest = blake2b(context.encode(), digest_size=DIGEST_SIZE)
    digest.update(b"\0")
    digest.update(data)
    return digest.digest()
