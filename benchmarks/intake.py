"""CPU seconds and peak memory of reading and scanning CT folders: ``python -m benchmarks.intake FOLDER ...``."""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path


def main() -> None:
    """One line a folder: scan (headers and hash), read (decode to HU), slices, peak memory so far."""
    import SimpleITK as sitk

    from shapemodel.study import read_ct, scan_folder

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    out = sys.stdout.write
    out("| folder | slices | scan s | read s | peak MB |\n|---|---|---|---|---|\n")
    for folder in parser.parse_args().folders:
        start = time.process_time()
        scan_folder(folder)
        scanned = time.process_time()
        image = read_ct(folder)
        done = time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        out(f"| {folder.name} | {image.GetSize()[2]} | {scanned - start:.2f} | {done - scanned:.2f} | {peak:.0f} |\n")


if __name__ == "__main__":
    main()
