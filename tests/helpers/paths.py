"""Where the repository's files are."""

from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
CONFIGS = REPOSITORY / "configs"
TESTS = REPOSITORY / "tests"
