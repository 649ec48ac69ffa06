"""Mao et al. 2022: direct regression with a transformer. COCO validation, ResNet-50, 256x192 unless said; AP."""

from functools import partial

from coordreg.papers.row import Row

_row = partial(Row, paper="poseur", chapter="poseur")

ROWS = (
    _row(
        id="poseur-tab1a",
        what="Initial reference points: learned, from the FC proposal",
        figures="72.3, 72.9 AP",
        how="trend",
    ),
    _row(
        id="poseur-tab1b",
        what="Noisy reference points off / on",
        figures="73.7 / 74.3 AP",
        how="trend",
    ),
    _row(
        id="poseur-tab1c",
        what="Score of a pose: RLE's, equation 8, none",
        figures="73.6, 74.7, 70.0 AP; AR is equal",
        how="trend",
    ),
    _row(
        id="poseur-tab1d",
        what="Feature levels Res5; Res4-5; Res3-5; Res2-5",
        figures="28.3M 4.12G 73.7; 28.7M 4.18G 74.2; 28.9M 4.28G 74.4; 29.0M 4.48G 74.7 AP",
        how="exact + trend",
    ),
    _row(
        id="poseur-tab1e",
        what="Decoder layers 3, 4, 5, 6",
        figures="28.8M 4.48G 74.7; 30.2M 4.51G 75.3; 31.6M 4.54G 75.4; 33.1M 4.57G 75.4 AP",
        how="exact + trend",
    ),
    _row(
        id="poseur-tab2a",
        what="SimpleBaseline -> Poseur by backbone",
        figures="MobileNet-V2 65.9 -> 71.9 (4.55 -> 0.52 GFLOPs), ResNet-50 72.4 -> 75.4, HRNet-W32 75.0 -> 76.9 AP",
        how="trend + exact",
        misprint="SimpleBaseline's GFLOPs count a deconvolution at its output size",
    ),
    _row(
        id="poseur-tab2b",
        what="SimpleBaseline -> Poseur by input size",
        figures="64x64 31.4 -> 47.9 (0.69 -> 0.49 GFLOPs); 128x128 59.3 -> 67.1 (2.76 -> 1.55); 256x192 71.0 -> 74.7 "
        "(8.26 -> 4.48); 34.0M -> 28.8M",
        how="exact + trend",
        misprint="SimpleBaseline's GFLOPs count a deconvolution at its output size",
    ),
    _row(
        id="poseur-tab3",
        what="End to end in Mask R-CNN",
        figures="ResNet-101 66.0 (heatmap), 66.7 (RLE), 68.6 (Poseur); HRNet-W48 70.1, with flip and scales 70.8 "
        "(cited: another paper's backbone); PRTR 64.9, PointSet Anchor 67.0 AP",
        how="trend + recipe",
    ),
    _row(
        id="poseur-tab4",
        what="MPII validation, HRNet-W32",
        figures="90.5 PCKh",
        how="recipe",
    ),
    _row(
        id="poseur-tab5",
        what="COCO validation by backbone",
        figures="MobileNet-V2 71.9 (0.5 GFLOPs), R50 75.4 (4.6), R152 76.3 (11.9), HRNet-W32 76.9 (7.4), W48 at "
        "384x288 78.8 (33.6); HRFormer-T 74.3 (1.4), -S 76.6 (3.0), -B 78.9 (12.6) and 79.6 AP (27.4) (cited: another "
        "paper's backbone)",
        how="recipe + exact",
    ),
    _row(
        id="poseur-tab6",
        what="COCO test-dev",
        figures="W48 77.6, HRFormer-B 78.3 AP (the column lost its header in our copy: the first number)",
        how="recipe",
    ),
    _row(
        id="poseur-supp1",
        what="Training schedule of 150 to 325 epochs",
        figures="74.1 ... 75.5 AP",
        how="recipe",
    ),
    _row(
        id="poseur-supp2",
        what="Self-attention between joints off / on",
        figures="74.0 / 75.5 AP",
        how="trend",
    ),
    _row(
        id="poseur-supp-fig2",
        what="Attention between joints, drawn",
        figures="a picture",
        how="trend",
    ),
    _row(
        id="poseur-supp3",
        what="Decoder layers that share their weights",
        figures="32.3M 75.5 -> 26.2M 75.0 AP",
        how="exact + trend",
        misprint="32.3M counts as 33.2M",
    ),
    _row(
        id="poseur-supp4",
        what="Cost of the decoder: MSDA, EMSDA",
        figures="1.25 -> 0.44 GFLOPs at equal AP",
        how="exact",
    ),
    _row(
        id="poseur-supp5",
        what="Speed and memory against RLE",
        figures="Poseur R50 4.6 GFLOPs, 94 fps, 1,386M in training, 86.25M in testing; RLE HRNet-W32 7.1 GFLOPs, "
        "62 fps, 1,456M, 68.12M",
        how="exact",
    ),
    _row(
        id="poseur-supp6",
        what="Keypoint encoder and query decoder without the score, over RLE, ResNet-50",
        figures="+3.8 AP",
        how="trend",
    ),
    _row(
        id="poseur-supp-fig1",
        what="Joints outside the box: heatmaps cannot reach them, Poseur can",
        figures="pictures",
        how="trend",
    ),
    _row(
        id="poseur-drawings",
        what="Figures 1, 2, 3: accuracy against cost, three ways to regress, the architecture",
        figures="drawings",
        how="drawing",
    ),
)
