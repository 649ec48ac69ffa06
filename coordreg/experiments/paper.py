"""The papers' recipes by the names of their tables and figures: profile "paper", on real files, one seed.

    python -m coordreg run paper-dsnt-fig7 --profile paper --data mpii --root DIR --dry-run

DIR is the folder that contains mpii/, coco/, flic/ and human36m/, as for `data check`. Without --dry-run it trains,
resumes and records. `paper_cascade.py`, `paper_dsnt.py`, `paper_integral.py`, `paper_dark.py`, `paper_poseur.py`
and `paper_endtoend.py` say what a recipe takes from its paper, and what is our choice.
"""

from coordreg.experiments import paper_cascade as cascade
from coordreg.experiments import paper_dark as dark
from coordreg.experiments import paper_dsnt as dsnt
from coordreg.experiments import paper_endtoend as endtoend
from coordreg.experiments import paper_integral as integral
from coordreg.experiments import paper_poseur as poseur
from coordreg.experiments.recipes import paper_only
from coordreg.records import Run

# -- Tompson et al. 2015 -----------------------------------------------------------------------------------------------


def cascade_tab3(profile: str) -> list[Run]:
    """The cascade, table 3 on FLIC: coarse networks alone and cascades with 4x, 8x, 16x pooling, PCK by the torso.

    6 runs of 300 epochs. Printed at 0.05: face 91.6 at 16x, and 90.7 of Tompson et al. 2014.
    """
    paper_only(profile)
    return [cascade.run("flic", kind, by) for kind in ("coarse", "cascade") for by in cascade.POOLINGS]


def cascade_fig15(profile: str) -> list[Run]:
    """The cascade, figure 15 on FLIC: PCK averaged over elbows and wrists; 6 runs, all shared with table 3."""
    return cascade_tab3(profile)


def cascade_tab4(profile: str) -> list[Run]:
    """The cascade, table 4 on MPII's validation split: 4x pooling, people of one scale; 1 run of 140 epochs.

    Printed for the test set, PCKh at 0.5: elbow 83.9, wrist 77.8, hip 80.9, knee 72.3, ankle 64.8.
    """
    paper_only(profile)
    return [cascade.run("mpii", "cascade", 4)]


def cascade_fig16(profile: str) -> list[Run]:
    """The cascade, figure 16 on MPII: PCKh over all joints, the scale-normalised curve; 1 run, in table 4."""
    return cascade_tab4(profile)


# -- Nibali et al. 2018 ------------------------------------------------------------------------------------------------


def dsnt_fig7(profile: str) -> list[Run]:
    """DSNT, figure 7 on MPII: HM, FC, DSNT, DSNTr on ResNet-34 with maps of 7, 14, 28, 56 px.

    16 runs of 120 epochs. Printed: HM 44% at 7 px; DSNT 90.5% above it there and 2.0% at 56 px (relative).
    """
    paper_only(profile)
    return [dsnt.resnet(name, 34, cells) for name in dsnt.METHODS for cells in dsnt.STRIDES]


def dsnt_fig8(profile: str) -> list[Run]:
    """DSNT, figure 8 on MPII: DSNTr on ResNet-18, 34, 50, 101 by map size; ResNet-101@56px did not fit and is left out.

    15 runs of 120 epochs, four shared with figure 7.
    """
    paper_only(profile)
    every = [(depth, cells) for depth in dsnt.DEPTHS for cells in dsnt.STRIDES]
    return [dsnt.resnet("DSNTr", *pair) for pair in every if pair not in dsnt.LEFT_OUT]


def dsnt_fig9(profile: str) -> list[Run]:
    """DSNT, figure 9 on MPII: hourglasses of 1, 2, 4, 8 stacks by HM and DSNTr; 8 runs of 120 epochs."""
    paper_only(profile)
    return [dsnt.hourglass(name, stacks) for name in ("HM", "DSNTr") for stacks in dsnt.STACKS]


def dsnt_fig10(profile: str) -> list[Run]:
    """DSNT, figure 10 on MPII: ResNet-50 by DSNTr at 14, 28, 56 px and hourglasses by HM; all shared with 8 and 9."""
    paper_only(profile)
    return [
        *(dsnt.resnet("DSNTr", 50, cells) for cells in (14, 28, 56)),
        *(dsnt.hourglass("HM", stacks) for stacks in dsnt.STACKS),
    ]


def dsnt_tab4(profile: str) -> list[Run]:
    """DSNT, table 4: DSNTr on ResNet-50@28px beside the hourglass of 8, on MPII's validation split; all shared with 10.

    Printed for the test set: 89.5 and, by Newell et al., 90.9.
    """
    paper_only(profile)
    return [dsnt.resnet("DSNTr", 50, 28), dsnt.hourglass("HM", 8)]


# -- Sun et al. 2018 ---------------------------------------------------------------------------------------------------


def integral_tab1(profile: str) -> list[Run]:
    """Integral regression, table 1 and figure 2 on MPII: R1, H1-H3, I*, I1-I3 on ResNet-50; 8 runs of 140 epochs."""
    paper_only(profile)
    return [integral.flat(name, name) for name in integral.ROWS]


def integral_tab2(profile: str) -> list[Run]:
    """Integral regression, table 2 on MPII: H1 and I1 at 256 and 128 px with three and two upsamplings; 8 runs."""
    paper_only(profile)
    return [
        integral.flat(name, f"{name} {letter}", size=size, deconvs=deconvs)
        for letter, (size, deconvs) in integral.SETTINGS.items()
        for name in ("H1", "I1")
    ]


def integral_tab3(profile: str) -> list[Run]:
    """Integral regression, table 3 on MPII: I1 on ResNet-18, 50, 101 and H1 on ResNet-101; 4 runs."""
    paper_only(profile)
    every = [("H1", 101), ("I1", 18), ("I1", 50), ("I1", 101)]
    return [integral.flat(name, f"{name} ResNet-{depth}", depth=depth) for name, depth in every]


def integral_tab4(profile: str) -> list[Run]:
    """Integral regression, table 4 on MPII: MS-H1 with 1, 3, 4 stages and MS-I1 with 1 to 4; 7 runs, two shared."""
    paper_only(profile)
    every = [*(("H1", count) for count in (1, 3, 4)), *(("I1", count) for count in (1, 2, 3, 4))]
    return [integral.flat(name, f"MS-{name} {count}", stages=count) for name, count in every]


def integral_tab5(profile: str) -> list[Run]:
    """Integral regression, table 5 on MPII's validation split: R1, H1, I1, and in 4 stages, and on hourglasses; 7 runs.

    Printed for the test set: H1 89.4, MS-H1 89.8, HG-H1 90.4, R1 87.0, I1 90.0, MS-I1 90.7, HG-I1 91.0, with the flip
    test and the validation split among the training images.
    """
    paper_only(profile)
    found = [integral.flat("R1", "R1")]
    for name in ("H1", "I1"):
        found += [integral.flat(name, name), integral.flat(name, f"MS-{name}", stages=4)]
        found += [integral.flat(name, f"HG-{name}", stacks=8)]
    return found


def integral_tab6(profile: str) -> list[Run]:
    """Integral regression, table 6 on COCO's val2017: H1 and I1 on ResNet-101 with three upsamplings; 2 runs.

    Printed for test-dev in detected boxes: I1 67.8 AP, H1 1.5 lower.
    """
    paper_only(profile)
    return [integral.flat(name, name, depth=101, deconvs=3, coco=True) for name in ("H1", "I1")]


def integral_tab7(profile: str) -> list[Run]:
    """Integral regression, table 7 on Human3.6M: R1, H1, H2, I*, I1, I2 by strategies 1 and 2; 12 runs of 28 epochs."""
    paper_only(profile)
    return [integral.space(name, strategy, f"{name} {strategy}") for strategy in (1, 2) for name in integral.ROWS3D]


def integral_tab8(profile: str) -> list[Run]:
    """Integral regression, table 8 on Human3.6M: hourglasses with depths (64) and (1, 64) by H1 and I1; 4 runs."""
    paper_only(profile)
    return [
        integral.space(name, 1, f"{name} {count}", bins=bins)
        for count, bins in integral.DEPTHS.items()
        for name in ("H1", "I1")
    ]


def integral_tab9(profile: str) -> list[Run]:
    """Integral regression, table 9 on Human3.6M and MPII: H2 and I2 by image and map size; 8 runs, two shared."""
    paper_only(profile)
    return [
        integral.space(name, 2, f"{name} {letter}", size=size, deconvs=deconvs)
        for letter, (size, deconvs) in integral.SETTINGS.items()
        for name in ("H2", "I2")
    ]


def integral_tab10(profile: str) -> list[Run]:
    """Integral regression, table 10: protocol 1, PA-MPJPE by action, with MPII (printed: 40.6); 1 run."""
    paper_only(profile)
    return [integral.space("I*", 2, "I* with MPII", protocol=1)]


def integral_tab11(profile: str) -> list[Run]:
    """Integral regression, table 11: protocol 2, MPJPE by action, with MPII (printed: 49.6); 1 run, in table 7."""
    paper_only(profile)
    return [integral.space("I*", 2, "I* with MPII")]


def integral_tab12(profile: str) -> list[Run]:
    """Integral regression, table 12: protocol 2, MPJPE by action, without MPII (printed: 64.1); 1 run, in table 8."""
    paper_only(profile)
    return [integral.space("I1", 1, "HG-I1", bins=integral.DEPTHS[2])]


# -- Zhang et al. 2020 -------------------------------------------------------------------------------------------------


def dark_tab1(profile: str) -> list[Run]:
    """DARK, table 1 on COCO's val2017: no shift, the standard one and DARK read one HRNet-W32 at 128 x 96 px; 1 run.

    Printed: 61.2, 66.9, 68.4 AP.
    """
    paper_only(profile)
    return [dark.coco("HRNet-W32", dark.SMALL, "biased")]


def dark_tab2(profile: str) -> list[Run]:
    """DARK, table 2: without and with modulation, of table 1's network. Printed: 68.1, 68.4 AP."""
    paper_only(profile)
    return [dark.coco("HRNet-W32", dark.SMALL, "biased")]


def dark_tab3(profile: str) -> list[Run]:
    """DARK, table 3: biased and unbiased targets, each read by the standard shift and by DARK; 2 runs, one shared."""
    paper_only(profile)
    return [dark.coco("HRNet-W32", dark.SMALL, encoding) for encoding in dark.BOTH]


def dark_tab4(profile: str) -> list[Run]:
    """DARK, table 4: HRNet-W32 at three image sizes; 6 runs of 210 epochs, two shared."""
    paper_only(profile)
    sizes = (dark.SMALL, dark.MIDDLE, dark.LARGE)
    return [dark.coco("HRNet-W32", size, encoding) for size in sizes for encoding in dark.BOTH]


def dark_tab5(profile: str) -> list[Run]:
    """DARK, table 5: two hourglasses, three SimpleBaselines and two HRNets at 128 x 96 px; 14 runs, two shared."""
    paper_only(profile)
    return [dark.coco(network, dark.SMALL, encoding) for network in dark.NETWORKS for encoding in dark.BOTH]


def dark_tab6(profile: str) -> list[Run]:
    """DARK, table 6: DSNT, integral regression and DARK on HRNet-W32 at 128 x 96 px; 3 runs, one shared."""
    paper_only(profile)
    return [dark.mean("DSNT"), dark.mean("IPR"), dark.coco("HRNet-W32", dark.SMALL, "unbiased")]


def dark_tab7(profile: str) -> list[Run]:
    """DARK, table 7 on val2017: HRNet-W32 at 128 x 96 and W48 at 384 x 288 px; 2 runs, one shared.

    Printed for test-dev in detected boxes: 70.0, 76.2 AP. `python -m coordreg.experiments.ensemble` measures finished
    weights in boxes from a file.
    """
    paper_only(profile)
    return [dark.coco("HRNet-W32", dark.SMALL, "unbiased"), dark.coco("HRNet-W48", dark.LARGE, "unbiased")]


def dark_tab8(profile: str) -> list[Run]:
    """DARK, table 8 on MPII's validation split: HRNet-W32 at 256 px by biased and unbiased targets; 2 runs.

    Printed: 90.3 and 90.6 at 0.5, 37.7 and 42.0 at 0.1.
    """
    paper_only(profile)
    return [dark.mpii(encoding) for encoding in dark.BOTH]


def dark_tab9(profile: str) -> list[Run]:
    """DARK, table 9 on val2017: the members of an ensemble, HRNet-W48 and W32 at 384 x 288 px; 2 runs, both shared.

    When they are finished, `python -m coordreg.experiments.ensemble paper-dark-tab9 --root DIR` averages their maps.
    Printed for test-dev: 78.9 AP.
    """
    paper_only(profile)
    return [dark.coco(network, dark.LARGE, "unbiased") for network in ("HRNet-W48", "HRNet-W32")]


# -- Mao et al. 2022 ---------------------------------------------------------------------------------------------------


def poseur_tab3(profile: str) -> list[Run]:
    """Poseur, table 3 on COCO's val2017: heat maps, RLE and Poseur in Mask R-CNN, ResNet-101; 3 runs of 180,000 steps.

    Printed: 66.0, 66.7, 68.6 AP. The rows of HRNet-W48 and of other papers have no run.
    """
    paper_only(profile)
    return [endtoend.run(head) for head in endtoend.HEADS]


def poseur_tab4(profile: str) -> list[Run]:
    """Poseur, table 4 on MPII's validation split: HRNet-W32 at 256 px; 1 run of 325 epochs. Printed: 90.5 PCKh."""
    paper_only(profile)
    return [poseur.mpii()]


def poseur_tab5(profile: str) -> list[Run]:
    """Poseur, table 5 on COCO's val2017: MobileNet-V2, ResNet-50 and 152, HRNet-W32, W48; 5 runs of 325 epochs.

    Printed in detected boxes: 71.9, 75.4, 76.3, 76.9, 78.8 AP. HRFormer's rows are another paper's backbone.
    """
    paper_only(profile)
    return [poseur.coco(network) for network in poseur.TRUNKS]


def poseur_tab6(profile: str) -> list[Run]:
    """Poseur, table 6 on val2017: HRNet-W48 at 384 x 288 px; 1 run, in table 5. Printed for test-dev: 77.6 AP."""
    paper_only(profile)
    return [poseur.coco("HRNet-W48")]


def poseur_supp1(profile: str) -> list[Run]:
    """Poseur, supplement, table 1 on val2017: ResNet-50 for 150 to 325 epochs; 8 runs, one shared with table 5.

    Printed in detected boxes: 74.1 to 75.5 AP.
    """
    paper_only(profile)
    return [poseur.schedule(epochs) for epochs in poseur.SCHEDULES]
