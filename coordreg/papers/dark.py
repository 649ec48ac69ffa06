"""Zhang et al. 2020: distribution-aware coordinates. COCO validation, HRNet-W32, 128x96 unless said; AP."""

from functools import partial

from coordreg.papers.row import Row

_row = partial(Row, paper="dark", chapter="dark")

ROWS = (
    _row(
        id="dark-tab1",
        what="Decoding: none, standard shift, theirs",
        figures="61.2, 66.9, 68.4 AP",
        how="trend + exact",
    ),
    _row(
        id="dark-tab2",
        what="Distribution modulation off / on",
        figures="68.1 / 68.4 AP",
        how="trend",
    ),
    _row(
        id="dark-tab3",
        what="Encoding by decoding",
        figures="biased + standard 66.9, unbiased + standard 68.0, biased + theirs 68.4, unbiased + theirs 70.7 AP",
        how="trend",
    ),
    _row(
        id="dark-tab4",
        what="Input 128x96, 256x192, 384x288",
        figures="HRNet-W32 66.9 74.4 75.8, DARK 70.7 75.6 76.6 AP; 1.8, 7.1, 16.0 GFLOPs",
        how="exact + trend",
    ),
    _row(
        id="dark-tab5",
        what="Backbones: parameters, GFLOPs, AP without and with DARK",
        figures="Hourglass-4 13.0M 2.7G 66.2 -> 69.6; Hourglass-8 25.1M 4.9G 67.6 -> 70.8; SimpleBaseline R50 34.0M "
        "2.3G 59.3 -> 62.6, R101 53.0M 3.1G 58.8 -> 63.2, R152 68.6M 3.9G 60.7 -> 63.1; HRNet-W32 28.5M 1.8G "
        "66.9 -> 70.7; W48 63.6M 3.6G 68.0 -> 71.9",
        how="exact + trend",
        misprint="Hourglass-8 has 25.6M parameters",
    ),
    _row(
        id="dark-tab6",
        what="Against DSNT and IPR",
        figures="DSNT 57.6, IPR 68.0, DARK 70.7 AP",
        how="trend",
    ),
    _row(
        id="dark-tab7",
        what="COCO test-dev",
        figures="HRNet-W32 128x96 70.0, HRNet-W48 384x288 76.2 (with extra data 77.4) AP; 32.9 GFLOPs",
        how="recipe + exact",
    ),
    _row(
        id="dark-tab8",
        what="MPII validation, PCKh, without and with DARK (by joint in the paper)",
        figures="@0.5 90.3 -> 90.6; @0.1 37.7 -> 42.0",
        how="recipe",
    ),
    _row(
        id="dark-tab9",
        what="Challenge entry, an ensemble",
        figures="78.9 AP on test-dev, 76.4 on test-challenge",
        how="recipe",
    ),
    _row(
        id="dark-fig3",
        what="Distribution modulation: a predicted map before and after",
        figures="a picture",
        how="exact",
    ),
    _row(
        id="dark-fig4",
        what="Quantisation error: a joint between cells, and the cell it is rounded to",
        figures="a picture, no figure; rounding to cells of s pixels has an RMS error of s/sqrt(12) along each axis",
        how="exact",
        chapter="heatmap",
    ),
    _row(
        id="dark-speed",
        what="What DARK costs at test time, in Python",
        figures="360 -> 320 fps, 11% slower",
        how="exact",
    ),
    _row(
        id="dark-drawings",
        what="Figures 1, 2, 5: resolution reduction and recovery, the steps of decoding, predictions side by side",
        figures="drawings",
        how="drawing",
    ),
)
