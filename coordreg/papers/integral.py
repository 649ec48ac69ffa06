"""Sun et al. 2018: integral regression in 2-D and 3-D. MPII validation, COCO test-dev, Human3.6M.

Triples are PCKh@0.5 / PCKh@0.1 / AUC; errors on Human3.6M are MPJPE in mm.
"""

from functools import partial

from coordreg.papers.row import Row

_row = partial(Row, paper="integral", chapter="integral")

ROWS = (
    _row(
        id="integral-tab1",
        what="Losses and regression, ResNet-50, 256x256: PCKh@0.5 / @0.1 / AUC",
        figures="R1 84.6/25.0/54.1, H1 86.8/17.2/52.9, H2 86.4/17.6/53.1, H3 83.0/12.6/46.3, I* 86.0/28.3/56.6, "
        "I1 87.3/29.3/58.3, I2 86.9/29.7/58.3, I3 86.6/29.1/57.7",
        how="trend",
    ),
    _row(
        id="integral-fig2",
        what="The PCKh curves of table 1",
        figures="curves; the figures of table 1",
        how="trend",
    ),
    _row(
        id="integral-tab2",
        what="Resolution: (256, 3 deconvolutions), (256, 2), (128, 3), (128, 2); triples as in table 1",
        figures="H1 86.7/28.0/57.7, 86.8/17.2/52.9, 81.6/13.6/46.6, 75.4/5.6/34.1; I1 86.6/32.1/58.9, 87.3/29.3/58.3, "
        "83.2/20.6/50.7, 80.9/16.1/47.2; 7.3, 6.2, 1.8, 1.5 GFLOPs; 26M parameters",
        how="exact + trend",
        misprint="26M is ImageNet's classifier (25.56M); with the heads of the table it is 33.0M and 34.0M",
    ),
    _row(
        id="integral-tab3",
        what="ResNet-18, 50, 101; triples as in table 1",
        figures="H1 with ResNet-101 87.3/17.3/53.3; I1 86.0/25.7/55.6, 87.3/29.3/58.3, 87.9/30.3/59.0; 2.8, 6.2, "
        "11.0 GFLOPs; 12M, 26M, 45M parameters",
        how="exact + trend",
        misprint="12M, 26M, 45M are ImageNet's classifiers; with the head of the table it is 14.3M, 33.0M, 51.9M",
    ),
    _row(
        id="integral-tab4",
        what="Multi-stage networks of 1 to 4 stages; triples as in table 1",
        figures="MS-H1 86.8/17.2/52.9 (1), 87.1/17.8/53.7 (3), 87.4/17.8/54.0 (4); MS-I1 87.3/29.3/58.3, "
        "87.7/32.0/59.5, 87.8/32.4/59.9, 88.1/32.3/60.1",
        how="trend",
    ),
    _row(
        id="integral-tab5",
        what="MPII test set, PCKh@0.5",
        figures="H1 89.4, MS-H1 89.8, HG-H1 90.4, R1 87.0, I1 90.0, MS-I1 90.7, HG-I1 91.0",
        how="recipe",
    ),
    _row(
        id="integral-tab6",
        what="COCO test-dev",
        figures="I1 with ResNet-101, 256x256: 67.8 AP (AP50 88.2, AP75 74.8, M 63.9, L 74.0); H1 1.5 lower",
        how="recipe",
    ),
    _row(
        id="integral-tab7",
        what="Human3.6M, protocol 2, MPJPE of R1, H1, H2, I*, I1, I2",
        figures="strategy 1 (3-D only) 106.6 99.5 80.4 100.2 86.4 66.2; strategy 2 (mixed 2-D and 3-D, two-step) "
        "56.2 63.6 59.3 49.6 52.7 52.4",
        how="trend",
    ),
    _row(
        id="integral-tab8",
        what="Hourglass in 3-D, depth 64, one and two stages",
        figures="one stage 85.8 / 85.5 / 78.7; two stages 69.8 / 68.0 / 64.1",
        how="trend + recipe",
    ),
    _row(
        id="integral-tab9",
        what="Resolution in 3-D, in the order of table 2",
        figures="H2 59.3 61.5 66.6 86.4; I2 52.4 51.7 57.1 60.9",
        how="trend",
    ),
    _row(
        id="integral-tab10",
        what="Human3.6M, protocol 1 with extra 2-D data, 15 actions, PA-MPJPE",
        figures="40.6",
        how="recipe",
    ),
    _row(
        id="integral-tab11",
        what="Human3.6M, protocol 2 with extra 2-D data, 15 actions, MPJPE",
        figures="49.6",
        how="recipe",
    ),
    _row(
        id="integral-tab12",
        what="Human3.6M, protocol 2 without extra data, 15 actions, MPJPE",
        figures="64.1",
        how="recipe",
    ),
    _row(
        id="integral-l1",
        what="L1 on the joints works consistently better than L2",
        figures="a claim in the text, no figure",
        how="trend",
    ),
    _row(
        id="integral-pretrain",
        what="Heatmap loss first, the integral loss alone after it: slightly better than both from scratch",
        figures="a claim in the text, no figure",
        how="trend",
    ),
    _row(
        id="integral-eq5-6",
        what="Two-step marginals give exactly the one-step expectation",
        figures="an identity",
        how="exact",
    ),
    _row(
        id="integral-drawings",
        what="Figure 1: the pipeline with every choice of the ablation",
        figures="a drawing",
        how="drawing",
    ),
)
