"""Tompson et al. 2015: a coarse network, a cascade that refines it, SpatialDropout. FLIC and MPII.

FLIC: 3,987 training and 1,016 test images, quoted at 360x240, input 320x240. MPII: 256x256 crops.
"""

from functools import partial

from coordreg.papers.row import Row

_row = partial(Row, paper="cascade", chapter="cascade")

ROWS = (
    _row(
        id="cascade-fig3-5",
        what="Standard dropout and SpatialDropout after a convolution",
        figures="an argument, no figure: correlated neighbours keep the gradient, the effective learning rate is "
        "scaled by p, independence is not enhanced",
        how="exact",
    ),
    _row(
        id="cascade-fig9",
        what="Pooling 4x, 8x, 16x, coarse model alone: detection rate against distance",
        figures="curves; precision at small distances falls with pooling",
        how="trend",
    ),
    _row(
        id="cascade-tab1",
        what="Spread of the (x, y) errors: people's clicks against the model at 4x, 8x, 16x",
        figures="label noise of the face 0.65 px at 360x240, from 10 images; the other cells are lost in our copy",
        how="trend",
    ),
    _row(
        id="cascade-fig11",
        what="Histogram of the x error at 8x pooling, coarse model and cascade, two joints",
        figures="STD 3.13 -> 1.09 px and 4.25 -> 2.43 px (probably face and shoulder); the coarse error is nearly "
        "uniform in -4..+4 px; errors over 20 px removed",
        how="trend",
    ),
    _row(
        id="cascade-tab2",
        what="Forward time of the coarse and the fine network at 4x, 8x, 16x",
        figures="times are lost in our copy; the text: the cascade at 8x is significantly faster than 4x alone",
        how="exact",
    ),
    _row(
        id="cascade-fig12",
        what="What the cascade adds for face and wrist at 4x, 8x, 16x pooling",
        figures="curves; the gain is large at 8x and 16x",
        how="trend",
    ),
    _row(
        id="cascade-fig14a",
        what="Cascade that shares features, trained jointly, against a standard cascade trained greedily",
        figures="curves; the shared one is better at the same number of parameters",
        how="trend",
    ),
    _row(
        id="cascade-fig14b",
        what="With and without SpatialDropout, wrist",
        figures="curves",
        how="trend",
    ),
    _row(
        id="cascade-tab3",
        what="FLIC against earlier work, PCK@0.05 by joint",
        figures="face: Tompson 2014 90.7, this work at 16x 91.6; the other cells are lost in our copy",
        how="recipe",
    ),
    _row(
        id="cascade-fig15",
        what="FLIC, PCK averaged over wrist and elbow",
        figures="curves",
        how="recipe",
    ),
    _row(
        id="cascade-tab4",
        what="MPII, PCKh@0.5 by joint",
        figures="scale-normalised: elbow 83.9, wrist 77.8, hip 80.9, knee 72.3, ankle 64.8 (head 96.1, shoulder 91.9 "
        "and total 82.0 come from table 4 of the DSNT paper); normalised at test only: head 93.5, elbow 75.5, "
        "wrist 67.8, hip 68.3, knee 60.3, ankle 51.7; not normalised: elbow 67.5, wrist 59.8, hip 64.6, knee 55.6, "
        "ankle 46.1",
        how="recipe",
    ),
    _row(
        id="cascade-fig16",
        what="MPII, PCKh averaged over all joints",
        figures="curves of the three variants of table 4",
        how="recipe",
    ),
    _row(
        id="cascade-mrf",
        what="Tree-structured MRF over the joints, with the torso known, picks the annotated person",
        figures="a method, no figure; the fully connected form of the 2014 paper is an option",
        how="trend",
    ),
    _row(
        id="cascade-drawings",
        what="Figures 1, 2, 4, 6, 7, 8, 10, 13: predictions, multi-resolution network, cascade, crop module, fine "
        "network, several people's clicks, standard cascade",
        figures="drawings",
        how="drawing",
    ),
)
