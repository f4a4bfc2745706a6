import subprocess
import sys

from longplay.engine.memory import PeakMemory


def test_peak_memory_counts_what_the_block_held() -> None:
    with PeakMemory() as small:
        pass
    with PeakMemory() as large:
        block = bytearray(b"x") * 200_000_000
        del block
    assert large.bytes - small.bytes > 150_000_000


def test_it_can_be_imported_where_there_is_no_resource_module() -> None:
    code = "import sys; sys.modules['resource'] = None; import longplay.engine.memory"
    subprocess.run([sys.executable, "-c", code], check=True)
