"""The script for a machine with a GPU, as far as it runs on others. TRY=1 DEVICE=cpu tries all of it."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "on_a_gpu.sh"


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_its_syntax_and_its_usage():
    subprocess.run(["bash", "-n", SCRIPT], check=True, timeout=20)
    result = subprocess.run(["bash", SCRIPT], capture_output=True, text=True, timeout=20)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("tests/on_a_gpu.sh FOLDER [PHOTOS]: ") and "TRY=1" in result.stderr
