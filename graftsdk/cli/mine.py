"""`graftsdk mine`: which negatives of a label are worth training on."""

from __future__ import annotations

import argparse
import os

from graftsdk.cli.output import print_json, print_table
from graftsdk.text import counted, one_line

__all__ = ["configure", "run"]

_SHOWN = 12  # clusters in the table; all are in clusters.csv

_WRITTEN = """\
DIR gets:
  keep.txt drop.txt   training images of the other classes, kept and not; paths from the label's folder
  review.txt          as near to the positives as these are to one another: probably wrongly labelled
  clusters.csv        every cluster: size, kept, EMD, spread, similarity, decision; mining.json: counts, settings
  distances.png       the clusters' distances; the floor is that of one half of the positives to the other
  sheets/             what is in each cluster that is kept whole or to be reviewed
  features/           of every image, kept for the next run with this trunk (2 bytes a value)
No image is moved, changed or deleted.

examples:
  graftsdk mine backpack --data labels --trunk trunk.safetensors -o mined/backpack
  graftsdk mine backpack --data labels --trunk trunk.safetensors -o mined/backpack --keep 0.25 --clusters 60"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Find the hard negatives of a label: k-means over the trunk's features of its negatives, the Earth Mover's "
        "Distance of each cluster to the positives, the near clusters kept, the others thinned. Needs the extra "
        "[train]."
    )
    parser.epilog = _WRITTEN
    add = parser.add_argument
    add("label", metavar="LABEL", help="a sub-dataset")
    add("--data", required=True, metavar="ROOT", help="the folder of the sub-datasets")
    add("--trunk", required=True, metavar="TRUNK", help="its checkpoint, .safetensors")
    add("-o", "--output", required=True, metavar="DIR", help="a folder outside the sub-dataset")
    add("--positive", metavar="CLASS", help="the class that is looked for; default: the last one")
    add("--keep", type=float, metavar="SHARE", help="of the negatives, filled by the nearest clusters; default 0.4")
    add("--rest", type=float, metavar="SHARE", help="of each other cluster, drawn at random; default 0.1")
    add("--clusters", type=int, metavar="K", help="default: sqrt(negatives / 2), at most 100")
    add("--sample", type=int, metavar="N", help="images a side of every distance; default 256, or what there is")
    add("--repeats", type=int, metavar="N", help="samples drawn for each distance; default: 1280 / N of --sample")
    add("--gamma", type=float, metavar="X", help="similarity = exp(-X EMD); default: ln 2 / the median EMD")
    add("--seed", type=int, metavar="N", help="of clusters and draws; default 0")
    add("--batch", type=int, metavar="N", help="crops at once through the trunk; default 32")
    add("--features", metavar="DIR", help="where features are kept; default: DIR/features")
    add("--quiet", action="store_true", help="no progress bars")
    add("--json", action="store_true", help="print counts and settings as JSON")
    parser.set_defaults(run=run)


_OPTIONS = ("keep", "rest", "clusters", "sample", "repeats", "gamma", "seed", "batch")


def run(args: argparse.Namespace) -> int:
    """Mine; always 0."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads leave the CPU to those that decode images
    from graftsdk.training.mining import MiningOptions, mine_negatives

    report = mine_negatives(
        args.data,
        args.label,
        args.trunk,
        args.output,
        MiningOptions(**{name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}),
        positive=args.positive,
        features=args.features,
        progress=not args.quiet,
    )
    if args.json:
        print_json(report.to_dict())
        return 0
    rows = [
        (str(row.cluster), str(row.size), str(row.kept), f"{row.emd:.4g}", f"{row.spread:.2g}", f"{row.similarity:.2f}")
        + (row.decision.value,)
        for row in report.clusters[:_SHOWN]
    ]
    head = ("cluster", "size", "kept", "EMD", "spread", "similarity", "")
    print_table([head, *rows], right=range(6))
    if len(report.clusters) > _SHOWN:
        print(f"... and {counted(len(report.clusters) - _SHOWN, 'cluster')} further away")
    print(
        f"{report.kept} of {counted(report.negatives, 'negative')} kept, {report.dropped} dropped, {report.review} for "
        f"review; floor {report.floor:.4g} ± {report.floor_spread:.2g}, {report.sample} images a side: "
        f"{one_line(str(report.folder))}"
    )
    return 0
