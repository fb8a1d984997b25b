"""Files: written whole or not at all, read without waiting, sealed against damage, locked."""

from htsr.files.locks import FileLock
from htsr.files.parquet import require_parquet
from htsr.files.regular import open_regular, read_regular, through_links
from htsr.files.seals import is_sealed, seal, unseal
from htsr.files.whole import ASIDE, written_aside

__all__ = [
    "ASIDE",
    "FileLock",
    "is_sealed",
    "open_regular",
    "read_regular",
    "require_parquet",
    "seal",
    "through_links",
    "unseal",
    "written_aside",
]
