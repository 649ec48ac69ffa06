"""Nibali et al. 2018: the differentiable spatial to numerical transform. MPII, PCKh@0.5 without pelvis and thorax."""

from functools import partial

from coordreg.papers.row import Row

_row = partial(Row, paper="dsnt", chapter="dsnt")

ROWS = (
    _row(
        id="dsnt-tab1",
        what="Properties of HM, FC and DSNT: differentiable throughout, spatially generalising, no parameters, good at "
        "high and at low resolution, optimises coordinates directly",
        figures="a table of yes and no; its cells are lost in our copy",
        how="exact",
    ),
    _row(
        id="dsnt-tab2",
        what="Heatmap activations softmax, abs, ReLU, sigmoid, each normalised to sum 1; ResNet-34@28px",
        figures="small differences, softmax best; the figures are lost in our copy",
        how="trend",
    ),
    _row(
        id="dsnt-fig3",
        what="Worked example: x and y of a small heatmap by two inner products",
        figures="by hand",
        how="exact",
    ),
    _row(
        id="dsnt-fig4",
        what="The pixel-wise loss falls while the argmax prediction gets worse",
        figures="target 8 with four neighbours at 5: a lone 8 costs 100 and is right, one 5 raised to 9 costs 16 and "
        "is wrong (sums of squares, not means)",
        how="exact",
        chapter="heatmap",
    ),
    _row(
        id="dsnt-fig5",
        what="Shapes of heatmaps under no, variance, KL and JS regularisation",
        figures="pictures; variance with sigma_t = 2 splits the blob into four",
        how="trend",
    ),
    _row(
        id="dsnt-tab3",
        what="Regularisers at sigma_t = 1 / 2, ResNet-34@28px",
        figures="none 86.86; variance (lambda 100) 84.58 / 85.88; KL (1) 84.67 / 84.15; JS (1) 87.59 / 86.71",
        how="trend",
    ),
    _row(
        id="dsnt-fig6",
        what="Sweep of sigma_t and of lambda for JS",
        figures="curves; sigma_t of 0.5 to 1 px is best, lambda hardly matters",
        how="trend",
    ),
    _row(
        id="dsnt-fig7",
        what="ResNet-34 with heatmaps of 7, 14, 28, 56 px, by HM, FC, DSNT, DSNTr",
        figures="HM 44% at 7 px; DSNT +90.5% relative at 7 px and +2.0% at 56 px; FC worst at high resolution; "
        "regularisation helps except at 7 px",
        how="trend",
    ),
    _row(
        id="dsnt-fig8",
        what="ResNet depth 18, 34, 50, 101 by heatmap resolution",
        figures="curves",
        how="trend + recipe",
    ),
    _row(
        id="dsnt-fig9",
        what="Hourglass of 1, 2, 4, 8 stacks, HM and DSNTr",
        figures="curves; DSNTr above HM at every depth",
        how="trend + recipe",
    ),
    _row(
        id="dsnt-fig10",
        what="Accuracy against inference time",
        figures="ResNet-50@28px against an hourglass of 8: 8% fewer parameters, under half the training memory, over "
        "3x the speed, about 99% of the PCKh",
        how="exact + recipe",
    ),
    _row(
        id="dsnt-fig11",
        what="1,024, 2,048, 4,096, 8,192 training samples without augmentation",
        figures="FC collapses: 22% at 1,024",
        how="trend",
    ),
    _row(
        id="dsnt-tab4",
        what="MPII test set, PCKh@0.5; time and memory",
        figures="DSNTr ResNet-50@28px 97.8 96.0 90.0 84.3 89.8 85.2 79.7, total 89.5, 18.6 ms, 636 MiB; hourglass of 8 "
        "90.9, 60.5 ms, 1,229 MiB",
        how="recipe + exact",
    ),
    _row(
        id="dsnt-boundary",
        what="DSNT is less accurate for joints near the image's border",
        figures="an analysis in the text, no figure",
        how="trend + exact",
    ),
    _row(
        id="dsnt-stn",
        what="DSNT as localisation network of a Spatial Transformer",
        figures="named as an application and as future work, no figure",
        how="trend",
    ),
    _row(
        id="dsnt-drawings",
        what="Figures 1, 2: where inference and gradient flow for HM, FC, DSNT; image, target and learnt heatmap",
        figures="drawings",
        how="drawing",
    ),
)
