"""IFEval's check of an answer's language, which langdetect makes at random unless its seed is fixed."""

SEED = 0


def fix_seed() -> None:
    """Let the same answer always get the same verdict: langdetect draws its guesses from this seed from now on."""
    from langdetect import DetectorFactory

    DetectorFactory.seed = SEED
