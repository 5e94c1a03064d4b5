"""The command ``shapemodel``: one subcommand a verb, each a thin layer over a Python function.

This module imports nothing heavy, so that help answers at once; :mod:`pipelines.commands` does the work.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from shapemodel.reasons import InputError, StudyError

EXIT_BUG, EXIT_INPUT, EXIT_STUDY, EXIT_RESOURCES, EXIT_INTERRUPTED = 1, 2, 3, 4, 130
"""Exit codes: a fault of ours, wrong input, an unfit study, no disk or memory, Ctrl-C."""


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    group = common.add_argument_group("common")
    group.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error, and the log")
    group.add_argument("--settings", metavar="TOML", help="a settings file; it names only what differs")
    return common


def _workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, help="processes; 1: none beside this one; default: one a core")
    parser.add_argument("--memory-gb", type=float, help="memory limit of a worker")
    parser.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="use this dask cluster")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="shapemodel",
        description="Chest CT studies in, average male and female skeletal thoraxes out.",
        epilog="Frame: LPS, millimetres; left is the patient's left.  'shapemodel VERB --help' says more.",
    )
    top.add_argument("--version", action="store_true", help="print the version and end")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    common = _common()

    def verb(name: str, help_: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=help_, description=help_, parents=[common])

    _line_verbs(verb)
    _stage_verbs(verb)
    _model_verbs(verb)
    _review_verbs(verb)
    return top


def _line_verbs(verb) -> None:  # noqa: ANN001
    p = verb("scan", "list the studies below a folder: what is usable, and why not")
    p.add_argument("root", help="folder of DICOM files in any order, or of volumes")
    p.add_argument("-m", "--manifest", default="data_manifest.csv", help="the CSV to write (%(default)s)")
    p.add_argument("--subjects", metavar="CSV|folder", help="CSV of id,pseudonym; or 'folder': the folders' names")
    p.add_argument("--salt", default="", help="secret for the hashes that become pseudonyms")
    p = verb("run", "studies of a manifest -> means, models and report; resumes where it stopped")
    p.add_argument("manifest", help="CSV, one row a study")
    p.add_argument("-o", "--out", required=True, help="the run's folder")
    _workers(p)
    p = verb("demo", "make the phantom cohort and run everything on it")
    p.add_argument("out", nargs="?", default="demo", help="the folder to work in (%(default)s)")
    p.add_argument("--studies", type=int, help="subjects, half female and half male")
    p.add_argument("--seed", type=int, help="of the cohort")
    _workers(p)
    p = verb("report", "write the HTML report of a run's folder anew")
    p.add_argument("folder", help="the run's folder")


def _stage_verbs(verb) -> None:  # noqa: ANN001
    p = verb("segment", "chest CT -> labelled bones")
    p.add_argument("ct", help="DICOM folder, or a NIfTI, NRRD or MHA volume")
    p.add_argument(
        "-o", "--output", required=True, help="labels .nii.gz, .seg.nrrd, .npy, .npz, .mrb or a folder (DICOM SEG)"
    )
    p.add_argument("--series", help="hash of the series, if not the best one")
    p.add_argument("--overrides", metavar="TOML", help="overrides.toml with corrections")
    p.add_argument("--subject", help="whose corrections")
    p = verb("surfaces", "label map -> closed surfaces of the bones")
    p.add_argument("labels", help="label map")
    p.add_argument("-o", "--output", required=True, help="surfaces, .vtp")
    p.add_argument("--scheme", default="shapemodel", help="whose numbers the label map uses (%(default)s)")
    p = verb("template", "surfaces of several subjects -> the reference mesh of the whole thorax")
    p.add_argument("meshes", nargs="+", help="surfaces, .vtp")
    p.add_argument("-o", "--output", required=True, help="template, .vtp")
    p = verb("register", "surfaces -> the template's vertices on this subject")
    p.add_argument("mesh", help="surfaces, .vtp")
    p.add_argument("-t", "--template", required=True, help="template, .vtp")
    p.add_argument("-o", "--output", required=True, help="registered mesh, .vtp")
    p.add_argument("--force", action="store_true", help="write it even outside the limits")


def _model_verbs(verb) -> None:  # noqa: ANN001
    p = verb("model", "registered meshes -> pooled, female and male shape model")
    p.add_argument("meshes", nargs="+", help="registered meshes, .vtp; named SUBJECT.vtp or registered_SUBJECT.vtp")
    p.add_argument("-m", "--manifest", required=True, help="CSV that says who is who")
    p.add_argument("-o", "--out", required=True, help="folder for model_pooled.h5, model_female.h5, model_male.h5")
    p.add_argument(
        "--group", action="append", metavar="NAME:CONDITION",
        help="a model of these too, e.g. 'older_women: sex = F and age_years >= 60'; may be given several times",
    )  # fmt: skip
    p = verb("mean", "the mean of a model")
    p.add_argument("model", help="model, .h5")
    p.add_argument("-o", "--output", required=True, help=SHAPES)
    p.add_argument("--symmetric", action="store_true", help="its left-right symmetric form")
    _deck_options(p)
    p = verb("query", "a shape of a model: percentile of a mode, joint percentile, covariates, or samples")
    p.add_argument("model", help="model, .h5")
    p.add_argument("-o", "--output", required=True, help=SHAPES)
    p.add_argument("--mode", type=int, action="append", help="a mode, from 1; may be given several times")
    p.add_argument("--percentile", type=float, action="append", help="its percentile, 0-100; one a --mode")
    p.add_argument("--kind", choices=("gaussian", "empirical"), default="gaussian", help="of percentile (%(default)s)")
    p.add_argument(
        "--joint", type=float, metavar="PERCENT",
        help="the shape at this joint percentile along --mode, or by equal parts along several",
    )  # fmt: skip
    p.add_argument("--among", type=int, metavar="K", help="joint over the first K modes (default: all of the model)")
    p.add_argument("--sex", choices=("female", "male", "F", "M"), help="covariate")
    p.add_argument("--age", type=float, help="covariate, years")
    p.add_argument("--height", type=float, help="covariate, cm")
    p.add_argument("--weight", type=float, help="covariate, kg")
    p.add_argument("--bmi", type=float, help="covariate, kg/m2, instead of the weight")
    p.add_argument("--lung-volume", type=float, help="covariate, ml: how deep the breath was")
    p.add_argument("--residual-mode", type=int, help="vary what the covariates leave over, with --percentile")
    p.add_argument("--sample", type=int, metavar="N", help="N random shapes, named OUTPUT_1, OUTPUT_2 ...")
    p.add_argument("--seed", type=int, default=1, help="of samples (%(default)s)")
    _deck_options(p)
    p = verb("fit", "a model's shape and scores for a new subject, seen in whole or in part")
    p.add_argument("model", help="model, .h5")
    p.add_argument(
        "subject", help="registered mesh or surfaces (.vtp), label map, or landmarks: .csv with columns vertex, x, y, z"
    )
    p.add_argument("-o", "--output", required=True, help=SHAPES)
    p.add_argument("--scheme", default="shapemodel", help="whose numbers the label map uses (%(default)s)")
    p.add_argument("--scores", metavar="CSV", help="write the scores and their standard deviations")
    _deck_options(p)
    p = verb("solids", "fill a template's bones with tetrahedra, once; needs gmsh (pip install 'shapemodel[solids]')")
    p.add_argument("template", help="template, .vtp")
    p.add_argument("-o", "--output", required=True, help=".npz, for export --solids")
    p = verb("export", "a shape in another format, finite-element decks among them; a model for NumPy alone")
    p.add_argument("shape", help="a shape, .vtp; or a model, .h5, for .npz")
    p.add_argument("-o", "--output", required=True, help=".k .inp .bdf .stl .ply .obj .vtp .vtu .csv; .npz of a model")
    p.add_argument("--title", help="first line of a deck")
    p.add_argument("--solids", metavar="NPZ", help="decks: 10-node tetrahedra of the verb solids instead of shells")
    p.add_argument("--source", metavar="VTP", help=".csv: the shape that the control-point pairs start from")
    _deck_options(p)


SHAPES = "shape: .stl .ply .obj .vtp .vtu .k .inp .bdf, or .csv: control-point pairs from the model's mean to it"


def _deck_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--units", choices=("mm-kg-ms", "mm-t-s"), default="mm-kg-ms", help="of a deck (%(default)s)")
    p.add_argument("--split", action="store_true", help="decks: nodes in a file of their own, to be swapped")
    p.add_argument("--raw", action="store_true", help="as it is: neither repaired nor refused")


def _review_verbs(verb) -> None:  # noqa: ANN001
    from pipelines.corrections import add_arguments

    add_arguments(
        verb("edit", "correct a study: threshold, islands, local-threshold, grow-from-seeds, scissors, cut ...")
    )
    p = verb("preview", "one picture of a study: the CT, its labelled bones, and slices with outlines")
    p.add_argument("study", help="DICOM folder or volume")
    p.add_argument("-o", "--output", required=True, help=".png")
    p.add_argument("--labels", help="its label map; without it the CT is labelled first")
    p.add_argument("--shift", type=float, default=0.0, help="shift of the transfer function, HU (%(default)s)")
    p.add_argument("--roi", type=float, nargs=6, metavar="MM", help="xmin xmax ymin ymax zmin zmax, mm LPS")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; the exit code says how it ended."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    top = parser()
    args = top.parse_args(argv)
    if args.version:
        from importlib.metadata import version

        sys.stdout.write(f"shapemodel {version('shapemodel')}\n")
        return 0
    if args.verb is None:
        top.print_help()
        return EXIT_INPUT
    if args.debug:
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s: %(message)s")
    return guarded(args)


def guarded(args: argparse.Namespace) -> int:
    """Run the verb and turn what goes wrong into a sentence and an exit code."""
    try:
        from pipelines import commands

        commands.run(args)
    except KeyboardInterrupt:
        return _fail(args, "interrupted; the same command goes on where it stopped", EXIT_INTERRUPTED)
    except InputError as error:
        return _fail(args, str(error), EXIT_INPUT)
    except StudyError as error:
        return _fail(args, f"{error} [{error.code}]", EXIT_STUDY)
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_RESOURCES
    except MemoryError:
        words = "out of memory; use fewer --workers, a larger --memory-gb, or a larger machine"
        return _fail(args, words, EXIT_RESOURCES)
    except Exception as error:
        from pipelines.subject import is_full_disk

        if is_full_disk(error):
            words = "the disk is full; make room, and the same command goes on where it stopped"
            return _fail(args, words, EXIT_RESOURCES)
        words = f"internal error: {type(error).__name__}: {error} (--debug shows the traceback)"
        return _fail(args, words, EXIT_BUG)
    return 0


def _fail(args: argparse.Namespace, words: str, code: int) -> int:
    if args.debug:
        import traceback

        traceback.print_exc()
    sys.stderr.write(f"shapemodel {args.verb}: {' '.join(words.split())}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
